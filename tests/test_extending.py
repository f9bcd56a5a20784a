"""Extension points: the examples of docs/extending.md run in a user's package, by command."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import soundfile
from conftest import ROOT, TINY_SMALL, melody

from audio_diffusion_pytorch.codecs.loading import CODECS
from audio_diffusion_pytorch.diffusion.sampling import SOLVERS
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation.extensions import METRICS, TRACKERS, own_parts_key
from audio_diffusion_pytorch.models.networks import NETWORKS
from audio_diffusion_pytorch.utils.registry import Registry, import_plugins

REGISTRIES = (SOLVERS, CODECS, NETWORKS, METRICS, TRACKERS)
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```$",
    (ROOT / "docs" / "extending.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)
OWN_NETWORK = [
    *("model.model._target_=my_package.ConvNet", "labels=null", "codec=small"),
    *("length=9600", "trainer.gpus=0", "datamodule.num_workers=0"),
    *("callbacks.samples=null", "callbacks.preview=null"),
]


@pytest.fixture
def my_package(tmp_path, monkeypatch):
    """A module `my_package` that holds the examples; the registries forget them afterwards."""
    before = [dict(registry) for registry in REGISTRIES]
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "my_package.py").write_text("\n\n".join(EXAMPLES), encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    yield
    sys.modules.pop("my_package", None)
    for registry, parts in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(parts)


@pytest.fixture
def train(command, my_package, recordings):
    """Two steps of a tiny model with parts of `my_package`; returns what was printed."""

    def run(*arguments: str, tiny: list[str] = TINY_SMALL) -> str:
        result = command(
            "train.py",
            *("exp=flute_small", f"dataset_path={recordings}", "exp_tag=run", "octaves=null"),
            *("trainer.max_steps=2", "datamodule.batch_size=2", "log_every_n_steps=1"),
            *tiny,
            "plugins=[my_package]",
            *arguments,
        )
        assert result.code == 0, result.err
        return result.out

    return run


def printed_transfer(out: str) -> list[str]:
    """Arguments of the transfer command that a training run prints."""
    (line,) = re.findall(r"^transfer: +(.*)$", out, re.MULTILINE)
    words = shlex.split(line)
    return [word for word in words if "=" in word]


def test_own_data_set(train):
    out = train(
        *("datamodule.dataset._target_=my_package.Sines", "+datamodule.dataset.count=20"),
        *("dataset_path=none", "labels=null"),
    )
    assert "trained:    2 steps" in out


def test_own_transform(train, tmp_path):
    train("+datamodule.dataset.transforms._target_=my_package.PolarityFlip")
    assert "PolarityFlip" in (tmp_path / "logs" / "run" / "config.yaml").read_text()


def test_own_network_trains_and_transfers(train, command, recordings, tmp_path):
    assert "memory: " in train("dry_run=true", tiny=OWN_NETWORK)
    arguments = printed_transfer(train(tiny=OWN_NETWORK))
    given = {"input": recordings / "flute_0.wav", "output": tmp_path / "out.wav"}
    arguments = [a for a in arguments if a.partition("=")[0] not in given]
    arguments += [f"{key}={value}" for key, value in given.items()]
    result = command("transfer.py", *arguments, "num_steps=2", "device=cpu", "listen=false")
    assert result.code == 0 and given["output"].is_file(), result.err
    del NETWORKS["conv"]
    arguments = [a for a in arguments if not a.startswith("plugins")]
    assert "conv is not registered: add plugins=" in command("transfer.py", *arguments).error()


def test_own_codec_trains_and_transfers(train, command, recordings, tmp_path):
    tiny = [a for a in TINY_SMALL if "codec" not in a]
    out = train("codec._target_=my_package.CosineCodec", "~codec.name", tiny=tiny)
    arguments = printed_transfer(out)
    assert "plugins=[my_package]" in arguments and "target=OTHER_RUN_FOLDER" in arguments
    run = tmp_path / "logs" / "run"
    made = tmp_path / "out.wav"
    result = command(
        "transfer.py",
        *("plugins=[my_package]", f"source={run}", f"target={run}", "num_steps=2", "device=cpu"),
        *(f"input={recordings / 'flute_0.wav'}", f"output={made}", "listen=false"),
    )
    assert result.code == 0 and made.is_file(), result.err


def test_a_part_without_a_name_prints_no_command_that_cannot_load_it(train):
    (Path(sys.path[0]) / "my_package.py").write_text(
        "\n\n".join(EXAMPLES).replace('@NETWORKS.register("conv")\n', "")
    )
    out = train(tiny=OWN_NETWORK)
    assert "register the network my_package.ConvNet in NETWORKS first" in out
    assert "source=" not in out


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_own_solver(transfer, my_package, tmp_path, monkeypatch, workers):
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path / "code"), *filter(None, sys.path)])
    )
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(2):
        soundfile.write(folder / f"{index}.wav", melody(0.3, seed=index), 24000)
    result = transfer(
        *(f"input={folder}", f"output={tmp_path / 'out'}", "plugins=my_package"),
        *("solver=midpoint", "num_steps=3", f"workers={workers}", "listen=false"),
    )
    assert result.code == 0, result.err
    assert len(list((tmp_path / "out").glob("*.wav"))) == 2


def test_own_callback_and_logger(train, tmp_path):
    lines = tmp_path / "loss.jsonl"
    out = train(
        *("+callbacks.mine._target_=my_package.PrintLoss", "+callbacks.mine.every=1"),
        *("+loggers.mine._target_=my_package.JsonLines", f"+loggers.mine.path={lines}"),
    )
    assert "step 1: loss " in out
    assert any("train_loss" in json.loads(line) for line in lines.read_text().splitlines())


def test_own_metric_and_tracker(command, my_package, recordings, instruments, tmp_path):
    arguments = [
        *(
            "plugins=[my_package]",
            "metrics=[crest]",
            "tracker=spectral_peak",
            "pairs=[flute-violin]",
        ),
        *(f"data={recordings}", f"models={instruments[0].parent}", f"output={tmp_path / 'out'}"),
        *("seconds=1", "clips=2", "num_steps=2", "solver=euler", "sigma=4", "cycle_clips=0"),
        *("report_clips=0", "references=[identity]", "device=cpu", "transpose=0"),
    ]
    result = command("evaluate.py", *arguments)
    assert result.code == 0, result.err
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    identity, bridge = (
        {c["system"]: c for c in content["clips"]}[s] for s in ("identity", "bridge")
    )
    assert identity["crest"] == pytest.approx(1) and bridge["crest"] > 0
    assert identity["dpd"] == 0 and identity["rpa"] == 1
    assert "crest" in (tmp_path / "out" / "results.md").read_text()
    assert f"{len(content['clips'])} of " in command("evaluate.py", *arguments).out
    error = command("evaluate.py", *arguments, "metrics=[crets]").error()
    assert "metrics=crets must be one of crest; did you mean crest?" in error


def test_scores_are_made_again_where_the_code_of_a_metric_changed(my_package):
    METRICS["mine"] = lambda output, given, sample_rate: 1.0
    first = own_parts_key("basic_pitch", ["mine"])
    METRICS["mine"] = lambda output, given, sample_rate: 2.0
    assert first != own_parts_key("basic_pitch", ["mine"])
    assert own_parts_key("basic_pitch", []) is None  # scores of earlier versions stay valid
    with pytest.raises(InputError, match="dpd names a built-in score"):
        own_parts_key("basic_pitch", ["dpd"])


@pytest.mark.parametrize(
    ("script", "rest"),
    [
        ("train.py", ["exp=flute_small", "dataset_path=x"]),
        ("transfer.py", ["source=flute", "target=violin", "input=a.wav", "output=b.wav"]),
        ("evaluate.py", []),
    ],
)
def test_a_plugin_that_cannot_be_imported(command, script, rest):
    error = command(script, *rest, "plugins=[no_such_package]").error()
    assert "plugins: cannot import no_such_package: ModuleNotFoundError" in error
    assert "add its parent folder to PYTHONPATH" in error


def test_a_plugin_that_fails(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="cannot import broken_package: ZeroDivisionError"):
        import_plugins(["broken_package"])
    with pytest.raises(InputError, match="plugins=7 must be a list of modules"):
        import_plugins(7)


def test_a_misspelt_name_gets_the_nearest_one():
    registry = Registry("metric", {"crest": len, "level": len})
    assert registry.find("crest") is len
    with pytest.raises(InputError, match=r"metric=crets must be one of .*; did you mean crest\?"):
        registry.find("crets")
