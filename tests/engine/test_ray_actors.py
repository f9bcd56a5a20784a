"""Jobs on Ray clusters of this machine: lost nodes, deaf addresses, unlike nodes."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, run_process, start_process
from folders import clips, outputs
from toy_task import Events, Toy

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
from ray.cluster_utils import Cluster  # noqa: E402

from audio_diffusion_pytorch.cli import ending_on_terminate  # noqa: E402
from audio_diffusion_pytorch.engine import ray_actors  # noqa: E402
from audio_diffusion_pytorch.engine.checks import NodeCheck  # noqa: E402
from audio_diffusion_pytorch.engine.ray_actors import RayOptions, run_on_ray  # noqa: E402
from audio_diffusion_pytorch.errors import InputError, Interrupted  # noqa: E402

pytestmark = pytest.mark.long  # Ray declares the nodes of a busy machine dead
JOBS = [f"job{index}" for index in range(40)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One node; tests add others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(Path(__file__).parent)]))
        yield from started()


def started(cpus: int = 2) -> Iterator[Cluster]:
    cluster = Cluster(True, head_node_args={"num_cpus": cpus, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def run(cluster: Cluster, toy: Toy, jobs: list[str], tell: Callable, **options) -> None:
    options = {"actors": 2, "cpus": 1, **options}
    with NodeCheck.marked({"toy": "1.0"}, [], toy.folder) as check:
        run_on_ray(toy, RayOptions(cluster.address, **options), jobs, tell, check)
    assert not ray.is_initialized() and not list(toy.folder.glob(".engine-*"))


def processes(toy: Toy) -> set[int]:
    return {int(line.split()[1]) for line in (toy.folder / "log").read_text().splitlines()}


def ended(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


def test_every_job_is_done_once_and_actors_end(cluster, tmp_path):
    toy, events = Toy(tmp_path, 0.02), Events()
    run(cluster, toy, JOBS, events)
    assert sorted(events.done) == sorted(events.windows) == sorted(JOBS)
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


def test_a_lost_node(cluster, tmp_path):
    """Its jobs are done elsewhere, each once, although the other node has no room for its actor."""
    others = [cluster.add_node(num_cpus=2)]
    toy, events = Toy(tmp_path, 0.1), Events()

    def tell(event: str, job: str, value: object) -> None:
        events(event, job, value)
        if len(events.done) == 8 and others:
            cluster.remove_node(others.pop(), allow_graceful=False)

    jobs = [f"job{index}" for index in range(60)]
    run(cluster, toy, jobs, tell, cpus=2)
    assert not others and len(processes(toy)) == 2
    assert sorted(events.done) == sorted(jobs) and not events.failed
    assert sorted(path.name for path in tmp_path.glob("job*") if path.suffix != ".lock") == sorted(
        jobs
    )


def test_ctrl_c_ends_the_actors(cluster, tmp_path):
    toy = Toy(tmp_path, 0.3)

    class Interrupting(Events):
        def __call__(self, event: str, job: str, value: object) -> None:
            super().__call__(event, job, value)
            if len(self.done) == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cluster, toy, JOBS, Interrupting())
    assert "job0" in (tmp_path / "log").read_text()
    assert not list(tmp_path.glob("*.lock"))
    before = (tmp_path / "log").read_text()
    time.sleep(1)
    assert (tmp_path / "log").read_text() == before


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


def test_a_folder_that_a_node_does_not_see_is_refused(cluster, tmp_path):
    check = NodeCheck({}, [], tmp_path / "local disk" / ".engine-1")
    with pytest.raises(InputError, match=r"node \S+ does not see .*/local disk of this command"):
        run_on_ray(Toy(tmp_path), RayOptions(cluster.address), JOBS, Events(), check)


def test_the_error_of_a_start_reaches_the_command(cluster, tmp_path):
    with pytest.raises(InputError, match=r"^no such model: choose another"):
        run(cluster, Toy(tmp_path, broken=True), JOBS, Events())


@pytest.mark.parametrize("silent", [False, True], ids=["closed", "silent"])
def test_an_address_that_does_not_answer(silent, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_actors, "_ANSWER", 1.0)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if silent:
            server.listen()
        options = RayOptions(f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(InputError, match=r"ray.address=127\.0\.0\.1:\d+ does not answer"):
            run_on_ray(Toy(tmp_path), options, JOBS, Events(), NodeCheck({}, [], tmp_path))


def test_transfer_writes_the_same_bytes_as_local_processes(cluster, transfer, tmp_path):
    folder = clips(tmp_path / "in", 6, seconds=1.0)
    (folder / "broken.wav").write_text("no sound")
    arguments = f"input={folder}", "batch_size=1", "plugins=[toy_task]"
    local = transfer(*arguments, f"output={tmp_path / 'local'}")
    options = "engine=ray", f"ray.address={cluster.address}", "ray.actors=2", "ray.cpus=1"
    other = transfer(*arguments, f"output={tmp_path / 'ray'}", *options)
    assert local.code == other.code == 1 and "cannot read" in local.err, local.err + other.err
    assert local.out.replace("/local", "") == other.out.replace("/ray", "")
    assert local.err.splitlines()[-1] == other.err.splitlines()[-1]
    assert len(outputs(tmp_path / "ray")) == 6 and not list(tmp_path.rglob(".engine-*"))
    for name in outputs(tmp_path / "local"):
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "ray" / name).read_bytes()
    again = transfer(*arguments, f"output={tmp_path / 'ray'}", "dry_run=true")
    assert "6 already finished" in again.out


FILES = 200


@pytest.fixture
def shared_folder(tmp_path, instruments, transfer) -> tuple[Path, tuple[str, ...]]:
    """A folder with 200 recordings, their outputs by a local run, and the arguments for others."""
    clips(tmp_path / "in", FILES, seconds=1.0)
    models = f"source={instruments[0]}", f"target={instruments[1]}", "num_steps=2", "device=cpu"
    arguments = *models, f"input={tmp_path / 'in'}", "batch_size=1"
    result = transfer(f"input={tmp_path / 'in'}", f"output={tmp_path / 'local'}", "batch_size=1")
    assert result.code == 0, result.err
    return tmp_path, (*arguments, f"output={tmp_path / 'out'}", "engine=ray", "ray.actors=2")


def written(out: Path) -> set[str]:
    return {name for name in outputs(out) if not name.startswith(".")} if out.exists() else set()


def wait_for(out: Path, count: int, process) -> None:
    limit = time.monotonic() + 300
    while len(written(out)) < count:
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.05)


def check_same(folder: Path) -> None:
    assert len(written(folder / "out")) == FILES
    for name in written(folder / "out"):
        assert (folder / "out" / name).read_bytes() == (folder / "local" / name).read_bytes()


@pytest.mark.long
def test_a_node_lost_amid_200_files(shared_folder):
    folder, arguments = shared_folder
    for cluster in started(1):
        other = cluster.add_node(num_cpus=1)
        more = f"ray.address={cluster.address}", "ray.cpus=1"
        process = start_process("transfer.py", *arguments, *more, cwd=folder, logs=folder)
        wait_for(folder / "out", 50, process)
        cluster.remove_node(other, allow_graceful=False)
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert int(out.partition("wrote ")[2].split()[0]) >= FILES - 1  # one may lack its event
        check_same(folder)


@pytest.mark.long
def test_the_head_lost_amid_200_files(shared_folder):
    folder, arguments = shared_folder
    for cluster in started(2):
        more = f"ray.address={cluster.address}", "ray.cpus=1"
        process = start_process("transfer.py", *arguments, *more, cwd=folder, logs=folder)
        wait_for(folder / "out", 50, process)
        cluster.head_node.kill_gcs_server()
        cluster.head_node.kill_raylet()
        _, err = process.communicate(timeout=300)
        assert process.returncode != 0, err
        before = {
            name: (folder / "out" / name).stat().st_mtime_ns for name in written(folder / "out")
        }
    again = run_process("transfer.py", *arguments, "ray.cpus=1", cwd=folder, logs=folder)
    assert again.code == 0, again.err
    assert f"{len(before)} already finished" in again.out
    check_same(folder)
    assert all((folder / "out" / name).stat().st_mtime_ns == t for name, t in before.items())
