"""Jobs in the actors of a Ray cluster."""

import os
import queue
import signal
import socket
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any

from audio_diffusion_pytorch.engine.checks import NodeCheck
from audio_diffusion_pytorch.engine.hand_out import hand_out
from audio_diffusion_pytorch.engine.options import RayOptions
from audio_diffusion_pytorch.engine.task import Event, Tell
from audio_diffusion_pytorch.errors import InputError

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ImportError:
    ray = None

_PENDING = 64  # events that an actor holds before it waits for the command
_ANSWER = 2.0  # seconds in which an address must answer
_JOIN = {"RAY_gcs_server_port_wait_time_s": "5"}  # for joining a cluster; Ray's default is 20 s
_START = {"RAY_prestart_worker_first_driver": "0"}  # for starting one: actors need no idle workers
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # of gRPC
_STOP = 20.0  # seconds in which actors may end by themselves
_STARTS = 3  # tries to start an actor
_THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # of the command: for actors
_SCARCE = 30.0  # seconds without an actor before a warning


def run_on_ray(
    task: Any,
    options: RayOptions,
    jobs: Sequence[Any],
    tell: Tell,
    check: NodeCheck,
    most: int | None = None,
) -> None:
    """Do jobs in actors, see `hand_out`; a lost actor starts again where resources are free.

    Args:
        task: settings of the jobs.
        options: cluster and resources.
        jobs: the jobs.
        tell: callback for events, called in this process.
        check: folders and versions of every node.
        most: largest number of actors; None: one for each job.

    Raises:
        InputError: Ray is not installed, the address does not answer, a node fails the check, or
            `task` cannot start.
    """
    with _connected(options.address):
        count, resources = _share(options, most or len(jobs))
        threads = {name: os.environ[name] for name in _THREADS if name in os.environ}
        actor = ray.remote(
            max_concurrency=2,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": threads},
            **resources,
        )(_Actor)
        pool = _Pool([_RayWorker(actor, task, i, count, check) for i in range(count)], resources)
        try:
            hand_out(pool.workers, jobs, tell, pool.wait)
        finally:
            pool.close()


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    if ray is None:
        raise InputError('engine=ray needs Ray: pip install "timbridge[ray]", in a clone ".[ray]"')
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # otherwise a warning
    os.environ.setdefault("RAY_health_check_timeout_ms", "60000")  # a busy machine answers late
    if address not in (None, "auto"):
        _check_answer(str(address))
    before = signal.getsignal(signal.SIGTERM)
    try:
        options = {} if address else {"include_dashboard": False}
        with _environment(_JOIN if address else _START):
            ray.init(address or "local", logging_level="error", log_to_driver=False, **options)
    except (RayError, RuntimeError, OSError, ValueError) as error:  # other versions of Ray, Python
        reason = " ".join(str(error).split())
        if "Failed to connect" in reason:
            reason += "; set RAY_AUTH_MODE=token if the cluster has a token"
        raise InputError(f"ray.address={address} cannot be used: {reason}") from error
    if current_thread() is main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray's own handler aborts the command
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables during a block, unless the user has set them."""
    added = defaults.keys() - os.environ.keys()
    os.environ.update({name: defaults[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _check_answer(address: str) -> None:
    """Check that a cluster answers: Ray itself would wait for more than a minute."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise InputError(
            f"ray.address={address} must be auto or HOST:PORT; run the command on a machine of the "
            "cluster, which sees the recordings"
        )
    try:
        with socket.create_connection((host, int(port)), timeout=_ANSWER) as connection:
            connection.sendall(_HELLO)
            answers = connection.recv(9)[3:4] == b"\x04"  # a frame with settings
    except OSError:
        answers = False
    if not answers:
        raise InputError(
            f"ray.address={address} does not answer: start a cluster with ray start --head, or "
            "check the address"
        )


def _share(options: RayOptions, most: int) -> tuple[int, dict[str, float]]:
    """Return the number of actors, and the resources of each."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = [node for node in nodes if node.get("CPU")]  # a head may give no cores
    gpus = sum(node.get("GPU", 0) for node in nodes)
    share = options.gpus if options.gpus is not None else float(gpus > 0)
    count = options.actors or (int(gpus / share) if share else len(nodes))
    count = max(1, min(count, most))
    cores = min((node["CPU"] for node in nodes), default=1)
    on_a_node = -(-count // max(1, len(nodes)))
    cpus = options.cpus or max(1, cores // on_a_node)
    return count, {"num_cpus": cpus, "num_gpus": share}


class _Actor:
    """Remote process with the models of a task; one thread computes, so that `stop` is heard."""

    def __init__(self, task: Any, index: int, count: int, check: NodeCheck):
        self.task = task
        self.arguments = index, count
        self.check = check
        self.thread = ThreadPoolExecutor(1)
        self.stopping = False

    def start(self) -> None:
        """Load the models, and check the node."""
        self.check.see_folders(socket.gethostname())
        self.models = self.thread.submit(self.task.start, *self.arguments).result()
        self.check.compare(socket.gethostname(), self.task.versions(self.models))

    def do(self, jobs: Sequence[Any]) -> Iterator[Event]:
        """Do jobs; yield their events."""
        events: queue.Queue[Event | None] = queue.Queue(_PENDING)
        future = self.thread.submit(self._do, jobs, events)
        while (event := events.get()) is not None:
            yield event
        future.result()

    def stop(self) -> None:
        """Leave the running job through its `finally` clauses, which clean up."""
        self.stopping = True
        self.thread.shutdown()

    def _do(self, jobs: Sequence[Any], events: Any) -> None:
        def tell(*event: Any) -> None:
            if self.stopping:
                raise SystemExit
            events.put(event)

        try:
            self.task.do(self.models, jobs, tell)
        except SystemExit:
            pass
        finally:
            events.put(None)


class _RayWorker:
    """Actor of the command; after its death another one starts."""

    def __init__(self, actor: Any, *arguments: Any):
        self.actor_class = actor
        self.arguments = arguments
        self.deaths = 0  # before a start was complete
        self.begin()

    def begin(self) -> None:
        self.actor = self.actor_class.remote(*self.arguments)
        self.starting = self.actor.start.remote()
        self.ready = False

    def submit(self, jobs: Sequence[Any]) -> None:
        options = {"num_returns": "streaming", "_generator_backpressure_num_objects": _PENDING}
        self.stream = self.actor.do.options(**options).remote(jobs)

    def receive(self) -> Event | None:
        try:
            return ray.get(next(self.stream))
        except StopIteration:
            return None
        except RayTaskError as error:
            raise error.cause from error
        except RayError:  # the node or the process died, or ran out of memory
            self.begin()
            return None

    def started(self) -> None:
        """Note that the models are loaded; begin again after a death."""
        try:
            ray.get(self.starting)
            self.ready = True
            self.deaths = 0
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            self.deaths += 1
            if self.deaths == _STARTS:
                reason = str(error).strip().splitlines()[-1]
                raise InputError(f"an actor cannot start: {reason}") from error
            self.begin()


class _Pool:
    """Actors of the command."""

    def __init__(self, workers: Sequence[_RayWorker], resources: Mapping[str, float]):
        self.workers = workers
        self.resources = resources
        self.since: float | None = time.monotonic()  # without an actor; None: after a warning

    def wait(self, busy: Sequence[_RayWorker]) -> list[_RayWorker]:
        """Return busy workers with an event; empty when a worker has started or after a second."""
        starting = {w.starting: w for w in self.workers if not w.ready}
        streams = {w.stream: w for w in busy}
        found, _ = ray.wait([*streams, *starting], timeout=1, fetch_local=False)
        for one in found:
            if one in starting:
                starting[one].started()
        self._warn(bool(busy))
        return [streams[one] for one in found if one in streams]

    def _warn(self, working: bool) -> None:
        if working:
            self.since = time.monotonic()
        elif self.since is not None and time.monotonic() - self.since > _SCARCE:
            warnings.warn(f"still waiting for a node with {dict(self.resources)}", stacklevel=2)
            self.since = None

    def close(self) -> None:
        """End the actors; a job that is computed leaves through its `finally` clauses."""
        stopped = [worker.actor.stop.remote() for worker in self.workers if worker.ready]
        if stopped:
            ray.wait(stopped, num_returns=len(stopped), timeout=_STOP)
        for worker in self.workers:
            ray.kill(worker.actor)
