"""Configurations of the original system compose and train, or end in an error with a remedy."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY_SMALL
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from audio_diffusion_pytorch.compat.config import adapt, arithmetic
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.loading import load_instrument
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.training.resume import initialise_from
from audio_diffusion_pytorch.training.save_part import save_attribute
from audio_diffusion_pytorch.utils.checkpoint_io import load_checkpoint

ENCODEC = ("+codec.weights=random", "+codec.config.n_filters=2", "+codec.config.lstm=1")
EXPERIMENT = """# @package _global_
defaults:
  - model: {model}
  - datamodule: {datamodule}
  - callbacks: {callbacks}
  - loggers: tensorboard
  - trainer: {trainer}

exp_name: theirs
instruments: [flute]
sign: None
sampling_rate: 24000
length: 10240
channels: 1
latent: True
cond: False
latent_lenght: 32
train: True
log_every_n_steps: 2
mean_path: None
std_path: None
diffusion_sigma_data: 1.0
sigma_min: 0.001
sigma_max: 5
rho: 9.0
"""
MODEL = """
_target_: main.module_base_latent_cond.Model
lr: 1e-4
lr_beta1: 0.95
lr_beta2: 0.999
lr_eps: 1e-6
lr_weight_decay: 1e-3
ema_beta: 0.995
ema_power: 0.7
total_steps: 40
encodec_model: facebook/encodec_24khz
model:
  _target_: audio_diffusion_pytorch.AudioDiffusionModel
  in_channels: 128
  channels: 16
  patch_factor: 1
  multipliers: [1, 1]
  factors: [2]
  num_blocks: [1]
  attentions: [0, 0]
  attention_heads: 8
  attention_features: 128
  attention_multiplier: 2
  resnet_groups: 4
  kernel_multiplier_downsample: 2
  use_nearest_upsample: False
  use_skip_scale: True
  diffusion_sigma_distribution:
    _target_: audio_diffusion_pytorch.KDistribution
    sigma_min: ${sigma_min}
    sigma_max: ${sigma_max}
    rho: ${rho}
  diffusion_sigma_data: ${diffusion_sigma_data}
  diffusion_dynamic_threshold: 0.0
"""
DATAMODULE = """
_target_: main.module_base_latent_cond.Datamodule
dataset:
  _target_: audio_data_pytorch.WAVDataset
  path: ${dataset_path}
  recursive: True
  sample_rate: ${sampling_rate}
  transforms:
    _target_: audio_data_pytorch.AllTransform
    random_crop_size: ${length}
    instruments: ${instruments}
    sign: ${sign}
    mono: True
val_split: 0.2
batch_size: 2
num_workers: 0
pin_memory: False
"""
CALLBACKS = """
rich_progress_bar:
  _target_: pytorch_lightning.callbacks.RichProgressBar
model_checkpoint:
  _target_: pytorch_lightning.callbacks.ModelCheckpoint
  monitor: valid_loss
  save_top_k: 1
  save_last: True
  dirpath: ${ckpt_dir}
  filename: '{epoch:02d}-{valid_loss:.3f}'
model_summary:
  _target_: pytorch_lightning.callbacks.RichModelSummary
  max_depth: 2
audio_samples_logger:
  _target_: main.module_base_latent_cond.SampleLogger
  num_items: 1
  channels: ${channels}
  sampling_rate: ${sampling_rate}
  length: ${length}
  sampling_steps: [3]
  use_ema_model: True
  diffusion_sampler:
    _target_: audio_diffusion_pytorch.KarrasSampler
  diffusion_schedule:
    _target_: audio_diffusion_pytorch.KarrasSchedule
"""
TRAINER = """
_target_: pytorch_lightning.Trainer
gpus: 0
precision: 32
accelerator: null
max_epochs: 1
enable_model_summary: False
log_every_n_steps: 1
check_val_every_n_epoch: null
val_check_interval: ${log_every_n_steps}
"""


def config_folder(folder: Path, **texts: str) -> Path:
    """A folder for `--config-dir` with an experiment `theirs`; `texts` replaces group files."""
    groups = {
        "model": MODEL,
        "datamodule": DATAMODULE,
        "callbacks": CALLBACKS,
        "trainer": TRAINER,
        **texts,
    }
    for group, text in groups.items():
        (folder / "exp" / group).mkdir(parents=True, exist_ok=True)
        (folder / "exp" / group / "theirs.yaml").write_text(text)
    (folder / "exp" / "theirs.yaml").write_text(
        EXPERIMENT.format_map(dict.fromkeys(groups, "theirs"))
    )
    return folder


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Path:
    return config_folder(tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="module")
def kept_run(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kept") / "a"


@pytest.fixture
def trained(kept_run, theirs, command, recordings, tmp_path) -> Path:
    """The run folder of an experiment with nothing in it but the original's files, made once."""
    if kept_run.exists():
        return kept_run
    result = command(
        "train.py",
        *(
            f"--config-dir={theirs}",
            "exp=theirs",
            f"+dataset_path={recordings}",
            "exp_tag=a",
            *ENCODEC,
        ),
        "print_config=true",
    )
    assert result.code == 0, result.err
    assert (
        "_target_: audio_diffusion_pytorch.training.instrument_module.InstrumentModule"
        in result.out
    )
    assert "Warning" not in result.err and "warning: " not in result.err
    return (tmp_path / "logs/a").rename(kept_run)


def test_an_experiment_of_the_original_trains(trained):
    config = OmegaConf.load(trained / "config.yaml")
    assert config.datamodule.dataset.instruments == ["flute"] and config.sign is None
    assert config.datamodule.dataset.length == 10240 and config.datamodule.valid_split == 0.2
    assert sorted(path.suffix for path in (trained / "checkpoints").iterdir()) == [".ckpt", ".ckpt"]
    spec = load_instrument(trained / "checkpoints/last.ckpt").spec
    assert (spec.codec, spec.sigma_max, spec.rho, spec.name, spec.frames) == (
        "encodec",
        5.0,
        9.0,
        "flute",
        32,
    )
    assert load_instrument(trained).spec == spec
    schedule = load_checkpoint(trained / "checkpoints/last.ckpt")["lr_schedulers"][0]
    assert schedule["total_steps"] == 40
    assert list((trained / "tensorboard").glob("events*"))


def test_relative_defaults_over_the_groups_that_are_here(command, tmp_path):
    """As an experiment file of the original lies in exp/."""
    (tmp_path / "exp").mkdir()
    text = EXPERIMENT.format(
        model="latent", datamodule="default", callbacks="default", trainer="default"
    )
    (tmp_path / "exp/theirs.yaml").write_text(text)
    options = (f"--config-dir={tmp_path}", "--cfg", "job")
    result = command("train.py", *options, "exp=theirs", "exp_tag=a", "dataset_path=x")
    config = adapt(OmegaConf.create(result.out))
    assert (
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)["codec"]["name"]
        == "encodec"
    )
    assert (config.model.name, config.model.total_steps) == ("flute", None)
    assert config.datamodule.dataset.pitch_shift.sign is None


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "exp").glob("*.yaml")))
def test_experiments_that_are_here_stay_as_they_are(name, monkeypatch):
    monkeypatch.setenv("PROJECT_ROOT", str(ROOT))
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = compose("config", [f"exp={name}", "dataset_path=x"])
    assert OmegaConf.to_yaml(adapt(config)) == OmegaConf.to_yaml(config)


# Key by key.


def minimal(**keys) -> DictConfig:
    return OmegaConf.create(
        {"model": {}, "datamodule": {}, "trainer": {}, "length": 409600, **keys}
    )


def test_none_is_null():
    config = adapt(
        minimal(
            sign="None", mean_path="None", trainer={"deep": [{"x": "None", "y": "None of these"}]}
        )
    )
    assert config.sign is None and config.mean_path is None
    assert config.trainer.deep[0] == {"x": None, "y": "None of these"}


def test_keys_without_effect_are_named():
    with pytest.warns(UserWarning, match="cond .*latent_lenght=640 .length=409600 has 1280 frames"):
        config = adapt(minimal(cond=True, latent_lenght=640, latent=True))
    assert not {"cond", "latent", "latent_lenght"} & config.keys()


def test_the_codec_of_the_original(tmp_path):
    assert adapt(minimal()).codec == {
        "_target_": "audio_diffusion_pytorch.codecs.loading.load_codec",
        "name": "encodec",
    }
    assert adapt(minimal(codec={"weights": "random"})).codec.name == "encodec"
    for name in (True, "facebook/encodec_24khz", {"_target_": "main.Anything"}):
        assert "weights" not in adapt(minimal(encodec_model=name)).codec
    assert adapt(minimal(encodec_model=str(tmp_path))).codec.weights == str(tmp_path)
    assert adapt(minimal(instruments="flute")).instruments == ["flute"]


def test_data_set_of_the_original():
    node = OmegaConf.create(DATAMODULE).dataset
    node.check_silence = False
    node.transforms.loudness = -20
    dataset = adapt(minimal(datamodule={"dataset": node}, sign=-1)).datamodule.dataset
    assert (
        dataset._target_ == "audio_diffusion_pytorch.data.dataset.InstrumentDataset"
        and dataset.silence_db is None
    )
    assert OmegaConf.to_container(dataset.transforms) == {
        "_target_": "audio_data_pytorch.AllTransform",
        "loudness": -20,
        "target_rate": "${sampling_rate}",
    }
    assert dataset.pitch_shift.sign == -1


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"latent": False}, "choose the latents with codec="),
        ({"encodec_model": "nowhere/at all"}, "use codec.weights=PATH"),
        (
            {"model": {"_target_": "main.module_base.Vocoder"}},
            "model._target_=main.module_base.Vocoder is not supported",
        ),
        (
            {"model": {"_target_": "main.module_base.Model", "model": {"diffusion_type": "v"}}},
            "model.model.diffusion_type must be 'k'",
        ),
        (
            {"trainer": {"_target_": "pytorch_lightning.Trainer", "resume_from_checkpoint": "x"}},
            "use ckpt=FILE",
        ),
        (
            {"trainer": {"_target_": "pytorch_lightning.Trainer", "progress_bar_refresh_rate": 1}},
            "use callbacks.progress.refresh_rate",
        ),
        (
            {"datamodule": {"_target_": "audio_data_pytorch.WAVDataset", "stereo": True}},
            "use mono=true",
        ),
        (
            {
                "callbacks": {
                    "s": {
                        "_target_": "main.m.SampleLogger",
                        "diffusion_sampler": {"_target_": "a.Other"},
                    }
                }
            },
            "use callbacks.s.solver=heun",
        ),
    ],
)
def test_what_has_no_counterpart(keys, says):
    with pytest.raises(InputError, match=says):
        adapt(minimal(**keys))


def test_arithmetic_and_nothing_else():
    assert (
        arithmetic("409600 // 320") == 1280
        and arithmetic(" -(2 + 3) * 0.5 ") == -2.5
        and arithmetic("7 % 4") == 3
    )
    for expression in (
        "__import__('os').system('true')",
        "2 ** 9",
        "x",
        "1 / 0",
        "[1]",
        "",
        "'a' * 9",
        "(" * 9999,
        "True",
    ):
        with pytest.raises(InputError, match="write the value instead"):
            arithmetic(expression)


# The root's keys, through the command.


@pytest.fixture
def train(command, recordings):
    settings = (
        "exp=flute_small",
        *TINY_SMALL,
        f"dataset_path={recordings}",
        "datamodule.batch_size=2",
    )
    settings = (*settings, "trainer.max_steps=2", "log_every_n_steps=2", "exp_tag=b")
    return lambda *arguments: command("train.py", *settings, *arguments)


def test_sign_none_ignore_warnings_and_the_resolver(train, tmp_path):
    result = train(
        "sign=None", "+cond=true", "ignore_warnings=true", "ckpt_every_n_steps=${eval:'4 // 2'}"
    )
    assert result.code == 0 and "without effect" not in result.err, result.err
    config = OmegaConf.load(tmp_path / "logs/b/config.yaml")
    assert (
        config.sign is None
        and config.callbacks.last.every_n_train_steps == 2
        and "cond" not in config
    )


def test_pitch_shift_in_any_experiment(train, tmp_path):
    result = train("sign=1", "datamodule.dataset.pitch_shift.variants=2", "+cond=true")
    assert result.code == 0 and "warning: settings without effect: cond" in result.err, result.err
    assert len(list((tmp_path / "logs/cache/pitch").rglob("*_+*.flac"))) == 8
    assert "use 1 to shift up, -1 to shift down" in train("sign=3", "exp_tag=c").error()


def test_train_false_builds_and_stops(train, tmp_path):
    result = train("train=false")
    assert result.code == 0 and "not trained" in result.out
    assert not (tmp_path / "logs/b/checkpoints").exists()


def test_save_writes_a_part_of_a_checkpoint(trained, command, tmp_path):
    last = trained / "checkpoints/last.ckpt"
    for attribute, prefix in (
        ("ema.model.net", "ema.model.net."),
        ("model_ema", "ema."),
        ("mean", "mean"),
    ):
        result = command(
            "train.py", "exp=flute_latent", f"ckpt={last}", f"save={attribute}", "exp_tag=c"
        )
        path = tmp_path / f"logs/c/{attribute}.pt"
        assert result.code == 0 and f"saved: {path}" in result.out, result.err
        saved, state = torch.load(path, weights_only=True), load_checkpoint(last)["state_dict"]
        assert (
            all(torch.equal(value, state[prefix + key]) for key, value in saved.items())
            if prefix != "mean"
            else True
        )
        assert len(saved) == (
            128 if prefix == "mean" else sum(key.startswith(prefix) for key in state)
        )
    error = command("train.py", "exp=flute_latent", f"ckpt={last}", "save=nothing").error()
    assert "has no such part, only denoiser, ema, level, mean, std" in error
    assert (
        "save=mean needs ckpt=FILE" in command("train.py", "exp=flute_latent", "save=mean").error()
    )


# Starting from weights.


def write_original(path: Path) -> dict[str, torch.Tensor]:
    """Write a checkpoint in the original's layout; return its averaged weights."""
    arch = OmegaConf.to_container(OmegaConf.create(MODEL).model)
    arch = {key: value for key, value in arch.items() if not key.startswith(("_", "diffusion_"))}
    states = [UNet1d(**arch).state_dict() for _ in range(2)]
    roots = {
        "model.": states[0],
        "model_ema.online_model.": states[0],
        "model_ema.ema_model.": states[1],
    }
    names = ("unet.", "diffusion.net.", "diffusion.diffusion.net.")
    tensors = {
        f"{r}{n}{key}": value
        for r, state in roots.items()
        for n in names
        for key, value in state.items()
    }
    content = {
        "state_dict": tensors,
        "optimizer_states": [],
        "loops": {},
        "epoch": 3,
        "global_step": 100,
    }
    torch.save(content, path)
    return states[1]


def test_their_checkpoints_start_a_training_and_cannot_be_resumed(
    command, theirs, recordings, tmp_path
):
    weights = write_original(tmp_path / "epoch=3 (1).ckpt")
    settings = (f"--config-dir={theirs}", "exp=theirs", f"dataset_path={recordings}", *ENCODEC)
    settings = (
        *settings,
        "exp_tag=d",
        "model.total_steps=null",
        "model.lr=0",
        "callbacks.audio_samples_logger=null",
    )
    error = command("train.py", *settings, f"+ckpt={tmp_path}/epoch=3 (1).ckpt").error()
    assert "a checkpoint of the original system" in error and "init_from=FILE" in error
    result = command("train.py", *settings, f"+init_from={tmp_path}/epoch=3 (1).ckpt")
    assert result.code == 0, result.err
    trained = load_checkpoint(tmp_path / "logs/d/checkpoints/last.ckpt")["state_dict"]
    for prefix in ("denoiser.net.", "ema.model.net."):
        # The learning rate is 0: the averages' rounding is all that moves them.
        torch.testing.assert_close(
            {k: trained[prefix + k] for k in weights}, weights, rtol=1e-4, atol=1e-6
        )

    error = command(
        "train.py",
        *settings,
        f"init_from={tmp_path}/epoch=3 (1).ckpt",
        "model.model.channels=32",
        "exp_tag=f",
    ).error()
    assert "does not fit" in error and "instead of" in error


@pytest.mark.long
def test_our_models_start_a_training(train, trained, tmp_path):
    assert "trained on the codec" in train(f"init_from={trained}").error()
    assert "no such checkpoint: nowhere.ckpt" in train("init_from=nowhere.ckpt").error()
    assert "unknown instrument 'kazoo'" in train("init_from=kazoo").error()
    result = train("model.lr=0", "trainer.max_steps=2")
    assert result.code == 0, result.err
    export = tmp_path / "own.safetensors"
    shutil.copy(tmp_path / "logs/b/flute_small.safetensors", export)
    started = train("model.lr=0", f"init_from={export}", "exp_tag=e", "seed=2")
    assert started.code == 0, started.err
    first, second = (load_instrument(path).state_dict() for path in (export, tmp_path / "logs/e"))
    network = [key for key in first if key.startswith("denoiser")]
    assert network and all(torch.equal(first[key], second[key]) for key in network)
    error = train(f"init_from={export}", "model.model.channels=32", "exp_tag=f").error()
    assert "has another architecture" in error and "set model.model.* as in that model" in error
    with pytest.raises(InputError, match="init_from needs an experiment that trains an instrument"):
        initialise_from(torch.nn.Linear(1, 1), str(export))


def test_save_attribute_of_their_checkpoints(tmp_path):
    weights = write_original(tmp_path / "their.ckpt")
    path = save_attribute(str(tmp_path / "their.ckpt"), "model_ema.ema_model.unet", tmp_path)
    assert path == tmp_path / "model_ema.ema_model.unet.pt"
    saved = torch.load(path, weights_only=True)
    assert saved.keys() == weights.keys() and all(
        torch.equal(saved[key], weights[key]) for key in weights
    )
    with pytest.raises(InputError, match=r"only model, model_ema$"):
        save_attribute(str(tmp_path / "their.ckpt"), "unet", tmp_path)
