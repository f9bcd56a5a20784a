"""Packaging: an installation is complete (packages, models, clips, command) and works anywhere."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, TINY_SMALL

from audio_diffusion_pytorch import __version__
from audio_diffusion_pytorch.paths import CLIPS

SOURCES = ("audio_diffusion_pytorch", "basic-pitch-torch", "configs", "exp")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
FLUTE = min(CLIPS.glob("*_flute.flac"))


def build(kind: str, folder: Path) -> Path:
    """Build a wheel or an sdist from a copy of the checkout, because building writes into it."""
    source = folder / "source of it"
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source)
    code = f"from setuptools import build_meta; build_meta.build_{kind}(r'{folder}')"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (made,) = (path for path in folder.iterdir() if path.is_file())
    return made


def test_a_wheel_holds_everything(tmp_path):
    with zipfile.ZipFile(build("wheel", tmp_path)) as wheel:
        names = set(wheel.namelist())
        info = f"timbridge-{__version__}.dist-info"
        scripts = wheel.read(f"{info}/entry_points.txt").decode()
    assert scripts.split() == [
        "[console_scripts]",
        "timbridge",
        "=",
        "audio_diffusion_pytorch.commands.main:main",
    ]
    places = {
        "audio_diffusion_pytorch": "audio_diffusion_pytorch",
        "configs": "audio_diffusion_pytorch/configs",
        "exp": "audio_diffusion_pytorch/exp",
        "basic-pitch-torch/basic_pitch_torch": "basic_pitch_torch",
    }
    expected = {
        f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, place in places.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(expected) > 150 and {name for name in names if not name.startswith(info)} == expected


def install(kind: str, folder: Path) -> Path:
    """Make an environment with the package and this one's libraries; return its scripts folder."""
    built = build("wheel" if kind == "wheel" else "sdist", folder)
    environment = folder / "an environment"
    venv.create(environment, with_pip=False)
    place = Path(
        sysconfig.get_path("purelib", "venv", {"base": environment, "platbase": environment})
    )
    (place / "libraries.pth").write_text(
        f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n"
    )
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        scripts / "python",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, "--no-build-isolation", built], check=True)
    for path in (place / "audio_diffusion_pytorch").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return scripts


@pytest.mark.long
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_an_installation_works_from_another_folder(kind, tmp_path):
    scripts = install(kind, tmp_path / "build it")
    here = tmp_path / "another folder"
    here.mkdir()
    hidden = ("PYTHONPATH", "DIR_LOGS", "PROJECT_ROOT", "HOME", "TIMBRIDGE_COMMAND")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}

    def timbridge(*arguments: str) -> str:
        command = [str(scripts / "timbridge"), *map(str, arguments)]
        result = subprocess.run(command, env=environment, cwd=here, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert timbridge("--version") == f"timbridge {__version__}\n"
    where = "import audio_diffusion_pytorch.paths as p; print(p.ROOT, p.INSTALLED)"
    found = subprocess.check_output(
        [scripts / "python", "-c", where], env=environment, cwd=here, text=True
    )
    assert str(tmp_path) in found and found.endswith("True\n")

    timbridge(
        "transfer",
        "source=Flute",
        "target=violin",
        f"input={FLUTE}",
        "output=a.wav",
        "quality=draft",
    )
    assert (here / "a.wav").is_file()
    played = timbridge("demo", "--play")
    assert all(str(here / "demo" / f"flute_to_violin.{kind}") in played for kind in ("wav", "png"))
    assert (here / "demo" / "flute_to_violin.wav").is_file() and (
        here / "demo" / "flute_to_violin.png"
    ).is_file()
    shared = [
        "exp=flute_small",
        f"dataset_path={CLIPS}",
        "exp_tag=run",
        "trainer.max_steps=2",
        *TINY_SMALL,
    ]
    ended = timbridge(
        "train", *shared, "octaves=null", "datamodule.cache=true", "datamodule.batch_size=2"
    )
    assert "timbridge transfer " in ended
    assert (here / "logs" / "run" / "flute_small.safetensors").is_file() and (
        here / "logs" / "cache"
    ).is_dir()
    assert "timbridge evaluate" in timbridge("evaluate", "--help")
    assert "timbridge render" in timbridge("render", "--help")
    assert sorted(path.name for path in here.iterdir()) == ["a.wav", "demo", "logs"]
