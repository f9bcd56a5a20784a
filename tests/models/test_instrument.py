"""Instrument models: round trips through every kind of file and folder."""

import json
import runpy
import sys
from dataclasses import asdict, replace

import pytest
import torch
from conftest import ODD_NAME, ROOT, TINY_UNET
from safetensors.torch import save_file
from tolerances import HALF_MODEL, NETWORK

from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.instrument import (
    InstrumentModel,
    InstrumentSpec,
    select_condition,
)
from audio_diffusion_pytorch.models.labels import RECORDING_CONDITIONS, Labels, statistics_of
from audio_diffusion_pytorch.models.loading import load_instrument, shipped_instruments


def write_checkpoint(model: InstrumentModel, path) -> None:
    """As training writes it: the averaged weights beside others."""
    state = {
        f"ema.model.net.{key}": value for key, value in model.denoiser.net.state_dict().items()
    }
    state |= {
        f"denoiser.net.{key}": value + 1 for key, value in model.denoiser.net.state_dict().items()
    }
    content = {
        "state_dict": state | {"mean": model.mean, "std": model.std},
        "instrument": asdict(model.spec),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def answer(model: InstrumentModel) -> torch.Tensor:
    x = torch.randn(1, 128, 8, generator=torch.Generator().manual_seed(0))
    return model.denormalise(model.denoiser(model.normalise(x), 2.0))


def test_a_saved_model_is_the_same_in_half_precision(make_instrument, tmp_path):
    model = make_instrument("flute", frames=96, handoff_sigma=3.0)
    path = tmp_path / ODD_NAME / "flute.safetensors"
    model.save(path, {"step": "12"})
    size = sum(p.numel() for p in model.denoiser.parameters())
    assert path.stat().st_size < 2 * size + 40000
    again = load_instrument(path)
    assert asdict(again.spec) == asdict(model.spec)
    assert torch.equal(again.mean, model.mean) and torch.equal(again.std, model.std)
    assert torch.allclose(answer(again), answer(model), atol=HALF_MODEL)
    assert not again.training and not any(p.requires_grad for p in again.parameters())


def test_normalising_and_back(make_instrument):
    model = make_instrument()
    x = torch.randn(2, 128, 8)
    assert torch.allclose(model.normalise(x), (x + 6) / 2)
    assert torch.allclose(model.denormalise(model.normalise(x)), x, atol=NETWORK)


def test_checkpoints_give_the_averaged_weights(make_instrument, tmp_path):
    model = make_instrument()
    write_checkpoint(model, tmp_path / "epoch=03.ckpt")
    again = load_instrument(tmp_path / "epoch=03.ckpt")
    assert torch.equal(answer(again), answer(model)) and asdict(again.spec) == asdict(model.spec)


def test_a_model_of_few_steps_says_so(make_instrument, tmp_path, recwarn):
    """Models without a number of steps, such as the shipped ones, do not warn."""
    for steps in (None, 1, 200, 999, 1000):
        make_instrument("flute", steps=steps).save(tmp_path / f"{steps}.safetensors")
        assert load_instrument(tmp_path / f"{steps}.safetensors").spec.steps == steps
    for name in shipped_instruments():
        assert load_instrument(name).spec.steps is None
    said = [str(warning.message).partition(": ")[0] for warning in recwarn]
    assert said == [
        f"{tmp_path}/1.safetensors was trained for only 1 step",
        f"{tmp_path}/200.safetensors was trained for only 200 steps",
        f"{tmp_path}/999.safetensors was trained for only 999 steps",
    ]
    # Records of transfers contain this text, so it must not depend on the steps.
    assert "steps" not in repr(make_instrument("flute", steps=7).spec)


def test_files_from_before_there_were_steps(make_instrument, tmp_path):
    model = make_instrument("flute", steps=5)
    spec = {key: value for key, value in asdict(model.spec).items() if key != "steps"}
    tensors = {f"net.{key}": value for key, value in model.denoiser.net.state_dict().items()}
    header = {"format": "audio_diffusion_pytorch.instrument.1", "spec": json.dumps(spec)}
    save_file(
        {**tensors, "mean": model.mean, "std": model.std}, tmp_path / "old.safetensors", header
    )
    assert load_instrument(tmp_path / "old.safetensors").spec.steps is None


def test_run_folders(make_instrument, tmp_path):
    """The last checkpoint, until the run is exported."""
    run = tmp_path / ODD_NAME
    with pytest.raises(InputError, match=r"not found|unknown instrument"):
        load_instrument(run)
    run.mkdir()
    with pytest.raises(InputError, match="does not contain a model"):
        load_instrument(run)
    models = [make_instrument(seed=seed) for seed in range(3)]
    write_checkpoint(models[0], run / "checkpoints" / "best.ckpt")
    assert torch.equal(answer(load_instrument(run)), answer(models[0]))
    write_checkpoint(models[1], run / "checkpoints" / "last.ckpt")
    assert torch.equal(answer(load_instrument(run)), answer(models[1]))
    models[2].save(run / "flute_small.safetensors")
    assert torch.allclose(answer(load_instrument(run)), answer(models[2]), atol=HALF_MODEL)


def test_names_that_ship():
    for name in shipped_instruments():
        assert load_instrument(name).spec.name == name
    with pytest.raises(
        InputError, match=r"unknown instrument 'kazoo': Shipped models: bassoon, cello, .* all:NAME"
    ):
        load_instrument("kazoo")


@pytest.mark.parametrize(
    ("typed", "name"),
    [("Flute", "flute"), ("ALL:Oboe", "oboe"), ("all:Double_Bass", "double bass")],
)
def test_names_match_without_case(typed, name):
    assert load_instrument(typed).spec.name == name


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("flut", "flute"), ("Oboe", "all:oboe"), ("double-bass", "all:double bass")],
)
def test_a_name_that_does_not_ship_gets_the_nearest(typed, meant):
    with pytest.raises(InputError, match=f"did you mean {meant}[?]"):
        load_instrument(typed)


def test_a_file_of_a_name_in_capitals_is_itself(make_instrument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_instrument("bassoon").save(tmp_path / "Flute" / "bassoon.safetensors")
    assert load_instrument("Flute").spec.name == "bassoon"


def test_files_that_are_no_model(make_instrument, tmp_path):
    path = tmp_path / "flute.safetensors"
    with pytest.raises(InputError, match="model file not found"):
        load_instrument(path)
    model = make_instrument()
    model.save(path)
    good = path.read_bytes()
    for bad in (b"", b"no model", good[: len(good) // 2]):
        path.write_bytes(bad)
        with pytest.raises(InputError, match=f"cannot read {path}"):
            load_instrument(path)
    save_file({"a": torch.zeros(1)}, path, {"format": "something else"})
    with pytest.raises(InputError, match="is not an instrument model"):
        load_instrument(path)
    spec = json.dumps(asdict(model.spec) | {"unet": {**TINY_UNET, "channels": 32}})
    save_file(
        {"mean": model.mean, "std": model.std},
        path,
        {"format": "audio_diffusion_pytorch.instrument.1", "spec": spec},
    )
    with pytest.raises(InputError, match=f"cannot read {path}"):
        load_instrument(path)
    torch.save({"state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="not a checkpoint of an instrument"):
        load_instrument(tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="statistics have 3 values, expected 128"):
        InstrumentModel(InstrumentSpec("flute", TINY_UNET, "small"), torch.zeros(3), torch.ones(3))


def test_a_loaded_model_comes_back_as_it_is(make_instrument):
    model = make_instrument("flute")
    assert load_instrument(model) is model


def test_one_of_the_instruments_of_a_model(make_instrument, tmp_path):
    model = make_instrument(
        "all", unet={**TINY_UNET, "num_labels": 2}, labels=("flute", "double bass")
    )
    torch.nn.init.normal_(model.denoiser.net.to_label.weight)
    path = tmp_path / ODD_NAME / "all.safetensors"
    model.save(path)
    bass = load_instrument(f"{path}:double bass")
    assert (
        bass.spec.name == "double bass"
        and not bass.spec.labels
        and bass.denoiser.net.num_labels == 0
    )
    x = torch.randn(1, 128, 8)
    assert torch.allclose(
        bass.denoiser(x, 2.0), model.denoiser(x, 2.0, torch.tensor([1])), atol=HALF_MODEL
    )
    assert not torch.allclose(
        bass.denoiser(x, 2.0), model.denoiser(x, 2.0, torch.tensor([0])), atol=HALF_MODEL
    )
    with pytest.raises(
        InputError, match=r"the model contains flute, double bass: choose one, for example .*:flute"
    ):
        load_instrument(path)
    with pytest.raises(InputError, match=r"the model contains flute, double bass"):
        load_instrument(f"{path}:viola")
    make_instrument("flute").save(path)
    with pytest.raises(InputError, match="has only one instrument"):
        load_instrument(f"{path}:flute")


def test_labels_of_instruments_and_takes():
    for names, count, several in [
        ((), 0, ()),
        (RECORDING_CONDITIONS, 2, ()),
        (("flute", "tuba"), 2, ("flute", "tuba")),
        (("flute", "tuba", *RECORDING_CONDITIONS), 4, ("flute", "tuba")),
    ]:
        labels = Labels(names)
        assert (labels.count, labels.instruments) == (count, several)
        numbers = range(max(len(several), 1))
        found = {labels.index(number, varied) for number in numbers for varied in (False, True)}
        assert found == set(range(max(count, 1)))
        for number in numbers:
            both = torch.tensor([labels.index(number, varied) for varied in (False, True)])
            assert labels.instrument(both).tolist() == [number, number]


def test_one_instrument_of_a_model_that_knows_takes(make_instrument, codec, tmp_path):
    """It has labels of recording conditions like a single model, and its own statistics."""
    mean, std = torch.arange(2.0)[:, None].expand(2, 128), torch.ones(2, 128)
    spec = make_instrument(
        "all", unet={**TINY_UNET, "num_labels": 4}, labels=("flute", "tuba", *RECORDING_CONDITIONS)
    ).spec
    model = InstrumentModel(replace(spec, noise={"tuba": {"sigma": [1.0]}}), mean, std)
    torch.nn.init.normal_(model.denoiser.net.to_label.weight)
    model.save(tmp_path / "all.safetensors")
    tuba = load_instrument(f"{tmp_path / 'all.safetensors'}:tuba")
    assert (
        tuba.spec.labels == RECORDING_CONDITIONS
        and tuba.spec.noise == {"sigma": [1.0]}
        and tuba.mean.tolist() == [1.0] * 128
    )
    assert not load_instrument(f"{tmp_path / 'all.safetensors'}:flute").spec.noise
    whole = load_instrument(tmp_path / "all.safetensors", whole=True)
    x, sigma = torch.randn(1, 128, 64), torch.ones(1)
    for take, label in (("plain", 1), ("varied", 3)):
        expected = whole.denoiser(x, sigma, torch.tensor([label]))
        assert torch.allclose(
            select_condition(tuba, take).denoiser(x, sigma), expected, atol=10 * NETWORK
        )
    none = tuba.denoiser(x, sigma), whole.denoiser(x, sigma)
    assert torch.allclose(*none, atol=10 * NETWORK)
    tuba = Bridge(tuba, tuba, handoff="plain", codec=codec)
    assert tuba(torch.zeros(1, 24000), 24000).shape == (1, 24000)


def test_statistics_of_one_serve_all_instruments():
    assert statistics_of(torch.arange(3.0), (2, 3)).tolist() == [[0, 1, 2], [0, 1, 2]]
    assert statistics_of(torch.arange(6.0), (2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert statistics_of(torch.arange(3.0)[:, None], (3,)).tolist() == [0, 1, 2]


def test_hand_off_by_source_and_pitch_range_come_back(tmp_path, make_instrument, codec):
    from audio_diffusion_pytorch.bridge.bridge import Bridge

    spec = {"handoff_sigma": 3.0, "handoff_sigmas": {"flute": 2.0}, "pitch_range": (55, 93)}
    make_instrument("violin", **spec).save(tmp_path / "violin.safetensors")
    violin = load_instrument(tmp_path / "violin.safetensors")
    assert violin.spec.handoff_from("flute") == 2 and violin.spec.handoff_from("oboe") == 3
    assert tuple(violin.spec.pitch_range) == (55, 93)
    assert Bridge(make_instrument("flute"), violin, codec=codec).sigma == 2
    assert Bridge(make_instrument("oboe"), violin, codec=codec).sigma == 3
    assert Bridge(make_instrument("flute"), violin, 4.0, codec=codec).sigma == 4
    # The highest level in training limits the default.
    assert Bridge(make_instrument("oboe", sigma_max=2.5), violin, codec=codec).sigma == 2.5


def test_export_sets_what_a_bridge_takes_by_default(tmp_path, make_instrument, monkeypatch, capsys):
    make_instrument("violin").save(tmp_path / "in.safetensors")
    script = str(ROOT / "scripts" / "export_model.py")
    arguments = [
        str(tmp_path / "in.safetensors"),
        str(tmp_path / "out.safetensors"),
        "--handoff-sigma",
        "3",
    ]
    more = ["--handoff-from", "flute=2.5", "--plain-from", "flute", "--label-guidance", "2"]
    monkeypatch.setattr(sys, "argv", [script, *arguments, *more])
    runpy.run_path(script, run_name="__main__")
    spec = load_instrument(tmp_path / "out.safetensors").spec
    assert spec.label_guidance == 2
    assert (spec.handoff_sigma, spec.handoff_sigmas, spec.handoffs) == (
        3,
        {"flute": 2.5},
        {"flute": "plain"},
    )
    monkeypatch.setattr(sys, "argv", [script, *arguments, "--handoff-from", "flute"])
    with pytest.raises(SystemExit):
        runpy.run_path(script, run_name="__main__")
    assert "expected SOURCE=SIGMA" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [script, *arguments, "--label-guidance", "nan"])
    with pytest.raises(SystemExit):
        runpy.run_path(script, run_name="__main__")
    assert "--label-guidance=nan must be a number of at least 0" in capsys.readouterr().err


def test_the_takes_of_a_model(make_instrument, codec, tmp_path):
    """A bridge selects the condition "varied" of a source, "plain" of a target; names remain."""
    model = make_instrument(
        "flute", unet={**TINY_UNET, "num_labels": 2}, labels=RECORDING_CONDITIONS
    )
    torch.nn.init.normal_(model.denoiser.net.to_label.weight)
    model.save(tmp_path / "flute.safetensors")
    model = load_instrument(tmp_path / "flute.safetensors")
    bridge = Bridge(model, model, codec=codec)
    x, sigma = torch.randn(1, len(model.mean), 64), torch.ones(1)
    for found, label in ((bridge.source, 1), (bridge.target, 0)):
        assert found.spec.name == "flute" and not found.spec.labels
        expected = model.denoiser(x, sigma, torch.tensor([label]))
        assert torch.allclose(found.denoiser(x, sigma), expected, atol=10 * NETWORK)
    plain = load_instrument(f"{tmp_path / 'flute.safetensors'}:plain")
    assert plain.spec.name == "flute" and select_condition(plain, "varied") is plain
