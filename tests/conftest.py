"""Fixtures: small recordings, small models, and the commands as a user types them."""

import logging
import os
import resource
import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Before torch is imported. Small tensors gain nothing from threads that wait for each other;
# TEST_THREADS=4 tries more.
os.environ["OMP_NUM_THREADS"] = THREADS = os.environ.get("TEST_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # more threads than cores, spinning, take hours
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import soundfile
import torch
from hydra._internal.hydra import Hydra
from hydra.types import RunMode
from hypothesis import settings

import audio_diffusion_pytorch
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.codecs.mel import MelCodec
from audio_diffusion_pytorch.compat import moved
from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
from audio_diffusion_pytorch.models.instrument import InstrumentModel, InstrumentSpec
from audio_diffusion_pytorch.models.unet import UNet1d

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "golden"
PITCH_DATA = DATA / "pitch"
RATE = 24000
# One of everything that Hydra's grammar or a shell treats specially.
ODD_NAME = "odd né [x] (1) k=v & it's, $a {b}"
TINY_UNET = dict(
    in_channels=128,
    channels=16,
    multipliers=[1, 1],
    factors=[2],
    num_blocks=[1],
    attentions=[0, 0],
    resnet_groups=4,
)
TINY_CODEC = dict(dim=16, intermediate_dim=16, num_layers=1)
TINY_MODEL = [
    "model.model.channels=16",
    "model.model.multipliers=[1,1]",
    "model.model.factors=[2]",
    "model.model.num_blocks=[1]",
    "model.model.attentions=[0,0]",
    "model.model.resnet_groups=4",
]
TINY_SMALL = [
    *TINY_MODEL,
    "codec=small_untrained",
    *(f"+codec.{key}={value}" for key, value in TINY_CODEC.items()),
    "length=9600",
    "octaves=null",
    "trainer.gpus=0",
    "datamodule.num_workers=0",
    "callbacks.samples=null",
    "callbacks.preview=null",
]

GET_MODE = Hydra.get_mode  # composes the configuration a second time
torch.set_num_threads(int(THREADS))
# CI draws the same examples every time, so that no run is red by chance; `make test-long` searches
# anew, and further.
settings.register_profile("default", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("long", deadline=None, max_examples=1000, print_blob=True)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")
settings.load_profile(PROFILE)


def examples(number: int) -> int:
    """Set the examples of an expensive property: `number` in CI, ten times in `make test-long`."""
    return 10 * number if PROFILE == "long" else number


def melody(
    seconds: float = 1.0, sample_rate: int = RATE, seed: int = 0, brightness: float = 0.3
) -> np.ndarray:
    """Notes of a quarter second with a few harmonics, [T] in [-1, 1]."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    pitch = 440 * 2 ** (rng.integers(0, 12, int(seconds * 4) + 1)[(time * 4).astype(int)] / 12)
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    wav = sum(brightness**k * np.sin((k + 1) * phase) for k in range(4))
    envelope = np.minimum(1, 12 * (time * 4 % 1)) * np.minimum(1, 12 * (1 - time * 4 % 1))
    return (0.3 * wav * envelope).astype(np.float32)


def damage(path: Path) -> None:
    """Overwrite the middle of a file, so that its end can still be read."""
    data = path.read_bytes()
    start, end = len(data) // 3, len(data) // 2
    path.write_bytes(data[:start] + b"\xa5" * (end - start) + data[end:])


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> Path:
    """A folder with five clips of a flute and five of a violin, under a difficult name."""
    folder = tmp_path_factory.mktemp("data") / ODD_NAME
    folder.mkdir()
    for index in range(5):
        soundfile.write(folder / f"flute_{index}.wav", melody(seed=index), RATE)
        soundfile.write(folder / f"violin_{index}.flac", melody(seed=index, brightness=0.7), RATE)
    return folder


@pytest.fixture(scope="session")
def codec() -> MelCodec:
    torch.manual_seed(0)
    return MelCodec(**TINY_CODEC).freeze()


@pytest.fixture(scope="session")
def codec_file(tmp_path_factory, codec) -> Path:
    path = tmp_path_factory.mktemp("codec") / "codec.safetensors"
    codec.save(path)
    return path


@pytest.fixture(scope="session")
def make_instrument(codec_file) -> Callable[..., InstrumentModel]:
    """Small untrained models on the small codec."""

    def make(name: str = "flute", seed: int = 0, **spec) -> InstrumentModel:
        torch.manual_seed(seed)
        settings = dict(
            sigma_min=0.01,
            sigma_max=10.0,
            rho=7.0,
            level_db=-18.0,
            frames=64,
            codec=str(codec_file),
        )
        spec = InstrumentSpec(name, **{"unet": TINY_UNET, **settings, **spec})
        net = UNet1d(**spec.unet)
        mean, std = torch.full((net.in_channels,), -6.0), torch.full((net.in_channels,), 2.0)
        return InstrumentModel(spec, mean, std, Denoiser(net, spec.sigma_data)).eval()

    return make


@pytest.fixture(scope="session")
def instruments(tmp_path_factory, make_instrument) -> tuple[Path, Path]:
    """Exported models of a flute and a violin."""
    folder = tmp_path_factory.mktemp("models") / ODD_NAME
    paths = folder / "flute.safetensors", folder / "violin.safetensors"
    for seed, path in enumerate(paths):
        make_instrument(path.stem, seed).save(path)
    return paths


@pytest.fixture
def file_size_limit():
    """`with file_size_limit(bytes)`: the system refuses larger files, as on a full disk."""

    @contextmanager
    def limited(size: int):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@dataclass
class Result:
    code: int
    out: str
    err: str

    def error(self) -> str:
        """The one line that a failing command leaves, checked for being one."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert self.code == 1 and len(lines) == 1 and "Traceback" not in self.out + self.err, (
            self.code,
            self.out,
            self.err,
        )
        rest = [
            line
            for line in self.err.replace(
                "\x1b[A", ""
            ).splitlines()  # a bar below another one moves the cursor
            if line.strip() and not line.startswith(("error: ", "warning: ", "  "))
        ]
        bars = ("it/s", "clip/s", "batch", "window")
        assert not [line for line in rest if not any(word in line for word in bars)], self.err
        return lines[0]


@pytest.fixture
def command(monkeypatch, capfd, tmp_path) -> Callable[..., Result]:
    """Runs `train.py` or `transfer.py` in this process, in an empty folder, logs below it."""
    monkeypatch.setenv("DIR_LOGS", str(tmp_path / "logs"))
    monkeypatch.setenv("PROJECT_ROOT", str(ROOT))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    # Most of the work of a short training. test_handoff.py measures all levels.
    monkeypatch.setattr("audio_diffusion_pytorch.bridge.noise_statistics.LEVELS", (4.0,))
    monkeypatch.chdir(tmp_path)

    def run(script: str, *arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        sweep = {"-m", "--multirun"} & set(arguments)
        monkeypatch.setattr(Hydra, "get_mode", GET_MODE if sweep else lambda *_, **__: RunMode.RUN)
        capfd.readouterr()
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        code = 0
        with warnings.catch_warnings():
            try:
                runpy.run_path(str(ROOT / script), run_name="__main__")
            except SystemExit as stop:
                code = stop.code
                if isinstance(code, str):
                    print(code, file=sys.stderr)
                    code = 1
            finally:
                root.handlers[:], root.level = handlers, level
                torch.set_flush_denormal(
                    False
                )  # the commands' own setting; hypothesis needs all floats
        out, err = capfd.readouterr()
        return Result(code or 0, out, err)

    return run


@pytest.fixture
def folder(tmp_path) -> Path:
    """An empty folder under a difficult name."""
    path = tmp_path / ODD_NAME
    path.mkdir()
    return path


@pytest.fixture
def train(command):
    """The command with a small model."""

    return lambda *arguments: command(
        "train.py", "exp=flute_small", *TINY_SMALL, "datamodule.batch_size=4", *arguments
    )


@pytest.fixture
def transfer(command, instruments):
    """The command with small models and few steps; later arguments win."""

    def run(*arguments):
        given = dict(a.split("=", 1) for a in arguments)
        defaults = {
            "source": instruments[0],
            "target": instruments[1],
            "num_steps": 2,
            "device": "cpu",
        }
        return command(
            "transfer.py", *(f"{key}={value}" for key, value in (defaults | given).items())
        )

    return run


def start_process(script: str, *arguments: str, cwd: Path, logs: Path) -> subprocess.Popen:
    """Start a command in a session of its own, so that Ctrl-C reaches its workers."""
    environment = {**os.environ, "DIR_LOGS": str(logs), "OMP_NUM_THREADS": THREADS}
    environment.pop("PROJECT_ROOT", None)
    environment.pop("HYDRA_FULL_ERROR", None)
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background job ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run_process(script: str, *arguments: str, cwd: Path, logs: Path, limit: float = 300) -> Result:
    process = start_process(script, *arguments, cwd=cwd, logs=logs)
    try:
        out, err = process.communicate(timeout=limit)
    finally:
        process.kill()
    return Result(process.returncode, out, err)


@pytest.fixture
def takes(tmp_path) -> Path:
    """Recordings in two levels of folders, with what does not count between them."""
    folder = tmp_path / "takes"
    (folder / "deep er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name in (
        "a.wav",
        "b (1).WAV",
        "deep er/a.flac",
        "deep er/c.ogg",
        ".hidden/x.wav",
        "._a.wav",
    ):
        soundfile.write(folder / name, melody(0.3), RATE)
    soundfile.write(folder / "d.mp3", melody(0.3), RATE)
    (folder / "notes.txt").write_text("no audio")
    return folder


@pytest.fixture
def quick(make_instrument, codec) -> Bridge:
    """A bridge that changes nothing and takes no time."""
    bridge = Bridge(
        make_instrument("flute"),
        make_instrument("violin"),
        num_steps=2,
        handoff="plain",
        batch_size=64,
        codec=codec,
    )
    bridge.to_noise = bridge.from_noise = lambda latents, melody=None: latents
    return bridge


@pytest.fixture
def first_import(monkeypatch):
    """Modules of earlier versions as they are before anything imported them."""
    for name in moved.MOVED:
        monkeypatch.delitem(sys.modules, f"{moved.PACKAGE}.{name}", raising=False)
        monkeypatch.delattr(audio_diffusion_pytorch, name, raising=False)
