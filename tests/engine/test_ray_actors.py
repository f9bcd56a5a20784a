"""Jobs on Ray clusters of this machine: lost nodes, deaf addresses, unlike nodes."""

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
import soundfile
from conftest import RATE, ROOT, melody, start_process
from folders import clips, outputs
from toy_task import Events, Toy

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
from ray.cluster_utils import Cluster  # noqa: E402

from audio_diffusion_pytorch.cli import ending_on_terminate  # noqa: E402
from audio_diffusion_pytorch.engine import ray_actors  # noqa: E402
from audio_diffusion_pytorch.engine.checks import NodeCheck  # noqa: E402
from audio_diffusion_pytorch.engine.hand_out import _Todo  # noqa: E402
from audio_diffusion_pytorch.engine.options import RayOptions  # noqa: E402
from audio_diffusion_pytorch.engine.ray_actors import run_on_ray  # noqa: E402
from audio_diffusion_pytorch.engine.task import SPLIT  # noqa: E402
from audio_diffusion_pytorch.errors import InputError, Interrupted  # noqa: E402
from audio_diffusion_pytorch.transfer import parts  # noqa: E402
from audio_diffusion_pytorch.transfer.jobs import Job  # noqa: E402
from audio_diffusion_pytorch.transfer.progress import TransferProgress  # noqa: E402

JOBS = [f"job{index}" for index in range(20)]
FILES = 12
MANY = pytest.param(200, marks=pytest.mark.long)
SYSTEM = {  # of Ray: a busy node may answer late, a dead one is noticed soon
    "health_check_timeout_ms": 60_000,
    "health_check_period_ms": 300,
    "gcs_rpc_server_reconnect_timeout_s": 3,
    "worker_niceness": 0,  # Ray gives workers a low priority: 15
    "enable_worker_prestart": False,
    "prestart_worker_first_driver": False,
}


@pytest.fixture(scope="module")
def ray_settings() -> Iterator[None]:
    """Settings of all clusters of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(Path(__file__).parent)]))
        for key, value in SYSTEM.items():
            patch.setenv(f"RAY_{key}", str(value).lower())
        yield


@contextmanager
def started(**options: int) -> Iterator[Cluster]:
    """Start a cluster with one node."""
    few = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}  # daemons
    cluster = Cluster(True, head_node_args={"num_cpus": 2, **few, **options})
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def cluster(ray_settings) -> Iterator[Cluster]:
    """One node; tests add others."""
    with started() as cluster:
        yield cluster


def run(cluster: Cluster, toy: Toy, jobs: list[str], tell: Callable, **options) -> None:
    options = {"actors": 2, "cpus": 1, **options}
    with NodeCheck.marked({"toy": "1.0"}, [], toy.folder) as check:
        run_on_ray(toy, RayOptions(cluster.address, **options), jobs, tell, check)
    assert not ray.is_initialized() and not list(toy.folder.glob(".engine-*"))


def processes(toy: Toy) -> set[int]:
    return {int(line.split()[1]) for line in (toy.folder / "log").read_text().splitlines()}


def ended(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


@pytest.mark.long
def test_every_job_is_done_once_by_actors_that_end(cluster, tmp_path, monkeypatch):
    """Threads of an actor wait as those of the command, not as those of `ray start`."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "1234")
    toy, events, jobs = Toy(tmp_path), Events(), ["meet0", "meet1"]
    run(cluster, toy, jobs, events)
    assert sorted(events.done) == sorted(events.windows) == jobs
    assert {value["spins"] for value in events.done.values()} == {"1234"}
    assert len(processes(toy)) == 2
    limit = time.monotonic() + 20
    while not all(map(ended, processes(toy))):
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_a_job_that_ends_its_actor_twice_is_named_and_the_rest_is_done(cluster, tmp_path):
    toy, events = Toy(tmp_path), Events()
    run(cluster, toy, [*JOBS, "poison", "once"], events)
    assert list(events.failed) == ["poison"] and toy.tries("poison") == 2
    assert sorted(events.done) == sorted([*JOBS, "once"]) and toy.tries("once") == 2


@pytest.mark.long
def test_ctrl_c_ends_the_actors(cluster, tmp_path):
    toy = Toy(tmp_path, 0.3)

    class Interrupting(Events):
        def __call__(self, event: str, job: str, value: object) -> None:
            super().__call__(event, job, value)
            if len(self.done) == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cluster, toy, JOBS, Interrupting())
    assert not list(tmp_path.glob("*.lock"))
    before = (tmp_path / "log").read_text()
    time.sleep(1)
    assert (tmp_path / "log").read_text() == before


@pytest.mark.long
def test_a_signal_still_reaches_the_command(cluster, tmp_path):
    """Ray's own handler of SIGTERM would abort the command without its message."""
    with pytest.raises(Interrupted), ending_on_terminate():

        def tell(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        run(cluster, Toy(tmp_path), JOBS, tell)


def test_unlike_nodes_are_refused(cluster, tmp_path):
    options = RayOptions(cluster.address)
    with (
        NodeCheck.marked({"toy": "2.0"}, [], tmp_path) as check,
        pytest.raises(InputError, match=r"node \S+ has toy 1\.0, .* the command has 2\.0") as error,
    ):
        run_on_ray(Toy(tmp_path), options, JOBS, Events(), check)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.long
def test_a_folder_that_a_node_does_not_see_is_refused(cluster, tmp_path):
    check = NodeCheck({}, [], tmp_path / "local disk" / ".engine-1")
    with pytest.raises(InputError, match=r"node \S+ does not see .*/local disk of this command"):
        run_on_ray(Toy(tmp_path), RayOptions(cluster.address), JOBS, Events(), check)


@pytest.mark.long
def test_the_error_of_a_start_reaches_the_command(cluster, tmp_path):
    with pytest.raises(InputError, match=r"^no such model: choose another"):
        run(cluster, Toy(tmp_path, broken=True), JOBS, Events())


def test_without_ray(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_actors, "ray", None)
    with pytest.raises(InputError, match=r'engine=ray needs Ray: pip install "timbridge\[ray\]"'):
        run_on_ray(Toy(tmp_path), RayOptions(), JOBS, Events(), NodeCheck({}, [], tmp_path))


@pytest.mark.parametrize("answer", [None, b"", b"HTTP/1.1 404 Not Found\r\n\r\n"])
def test_an_address_that_does_not_answer_as_ray(answer, tmp_path, monkeypatch):
    """Nobody listens, a silent server, a server of another kind."""
    monkeypatch.setattr(ray_actors, "_ANSWER", 0.5)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answer is not None:
            server.listen()
            Thread(target=lambda: server.accept()[0].sendall(answer), daemon=True).start()
        options = RayOptions(f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(InputError, match=r"ray.address=127\.0\.0\.1:\d+ does not answer"):
            run_on_ray(Toy(tmp_path), options, JOBS, Events(), NodeCheck({}, [], tmp_path))


def same_bytes(folder: Path, *others: Path) -> bool:
    return all(
        (folder / name).read_bytes() == (other / name).read_bytes()
        for other in others
        for name in outputs(folder)
    )


def written(out: Path) -> set[str]:
    return {name for name in outputs(out) if not name.startswith(".")} if out.exists() else set()


class Losing:
    """Remove a node of a cluster after some finished files; note finished and split files."""

    def __init__(self, cluster: Cluster, count: int, monkeypatch):
        self.cluster = cluster
        self.node = cluster.add_node(num_cpus=2)
        self.count = count
        self.done: Counter[str] = Counter()
        told = TransferProgress.__call__

        def tell(progress: TransferProgress, event: str, job: Job, value: object) -> None:
            told(progress, event, job, value)
            if event == "done":
                self.done[job.input.name] += 1
                if self.done.total() == count:
                    cluster.remove_node(self.node, allow_graceful=False)

        self.split: list[str] = []
        handed = _Todo.tell

        def note(todo: _Todo, event: str, job: Job, value: object) -> None:
            if event == SPLIT:
                self.split.append(job.input.name)
            handed(todo, event, job, value)

        monkeypatch.setattr(TransferProgress, "__call__", tell)
        monkeypatch.setattr(_Todo, "tell", note)


@pytest.mark.parametrize("files", [FILES, MANY])
def test_a_node_lost_amid_files(files, cluster, transfer, tmp_path, monkeypatch):
    """Every file is there once, complete, equal to the local run's; one is split into parts.

    The other node has no room for the actor of the lost one. An unreadable file is named.
    """
    monkeypatch.setattr(parts, "_WINDOWS", 4)  # in the actors by the plugin
    folder = clips(tmp_path / "in", files - 1, seconds=1.0)
    soundfile.write(folder / "1_long.wav", melody(12), RATE)
    (folder / "broken.wav").write_text("no sound")
    arguments = f"input={folder}", "batch_size=1", "plugins=[short_parts]"
    local = transfer(*arguments, f"output={tmp_path / 'local'}")
    losing = Losing(cluster, files // 4, monkeypatch)
    options = "engine=ray", f"ray.address={cluster.address}", "ray.actors=2", "ray.cpus=2"
    other = transfer(*arguments, f"output={tmp_path / 'ray'}", *options)
    assert not cluster.worker_nodes
    assert local.code == other.code == 1 and "cannot read" in local.err, local.err + other.err
    # Ray reports the lost node first, which may leave a temporary file.
    assert other.out.replace("/ray", "").endswith(local.out.replace("/local", ""))
    assert local.err.splitlines()[-1] == other.err.splitlines()[-1]
    assert len(losing.done) == losing.done.total() == len(written(tmp_path / "ray")) == files
    assert same_bytes(tmp_path / "local", tmp_path / "ray")
    assert set(losing.split) == {"1_long.wav"}
    assert not list(tmp_path.rglob(".engine-*")) and not list(tmp_path.rglob(".parts-*"))
    again = transfer(*arguments, f"output={tmp_path / 'ray'}", "dry_run=true")
    assert f"{files} already finished" in again.out


@pytest.mark.parametrize("files", [FILES, MANY])
@pytest.mark.long
def test_the_head_lost_amid_files(files, ray_settings, transfer, instruments, tmp_path):
    """The same command goes on with the rest: of many files on a new cluster, of few without."""
    folder, out = clips(tmp_path / "in", files, seconds=1.0), tmp_path / "ray"
    models = f"source={instruments[0]}", f"target={instruments[1]}", "num_steps=2", "device=cpu"
    arguments = *models, f"input={folder}", "batch_size=1"
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    address = f"ray.address=127.0.0.1:{port}"
    options = f"output={out}", "engine=ray", address, "ray.actors=1", "ray.cpus=1"
    with started(gcs_server_port=port) as cluster:
        process = start_process("transfer.py", *arguments, *options, cwd=tmp_path, logs=tmp_path)
        limit = time.monotonic() + 120
        while len(written(out)) < files // 8:
            assert time.monotonic() < limit and process.poll() is None, process.communicate()
            time.sleep(0.05)
        cluster.head_node.kill_gcs_server()
        cluster.head_node.kill_raylet()
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "GCS" in err, err
    before = {name: (out / name).stat().st_mtime_ns for name in written(out)}
    assert len(before) < files
    if files > FILES:
        with started(gcs_server_port=port):
            again = transfer(*arguments, *options)
    else:
        again = transfer(*arguments, f"output={out}")
    assert again.code == 0, again.err
    assert f"wrote {files - len(before)} files" in again.out
    assert f"{len(before)} already finished" in again.out
    assert all((out / name).stat().st_mtime_ns == at for name, at in before.items())
    assert transfer(*arguments, f"output={tmp_path / 'local'}").code == 0
    assert len(written(out)) == files and same_bytes(tmp_path / "local", out)
