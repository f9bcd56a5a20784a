"""Every experiment composes, names things that exist, and builds what it names."""

import importlib.util
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY_CODEC
from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

import audio_diffusion_pytorch.commands.train  # noqa: F401, registers the resolvers
from audio_diffusion_pytorch.cli import one_line
from audio_diffusion_pytorch.instruments import INSTRUMENTS
from audio_diffusion_pytorch.models.labels import Labels

EXPERIMENTS = sorted(path.stem for path in (ROOT / "exp").glob("*.yaml"))
LATENT = [name for name in EXPERIMENTS if name.endswith("_latent")]
SMALL = [
    name
    for name in EXPERIMENTS
    if name.endswith("_small")
    and name.count("_") == 1
    and name not in ("codec_small", "all_small", "distill_small")
]
# Names in the experiments and groups of the original, which users' command lines and scripts set.
KEYS = """exp_name instruments sampling_rate length channels log_every_n_steps mean_path std_path
    diffusion_sigma_data sigma_min sigma_max rho dataset_path exp_tag ckpt model.lr model.lr_beta1
    model.lr_beta2 model.lr_eps model.lr_weight_decay model.ema_beta model.ema_power
    model.total_steps trainer.gpus trainer.precision trainer.max_epochs datamodule.batch_size
    datamodule.num_workers"""


def composed(name: str, *overrides: str, command: str = "config") -> DictConfig:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose(
            command, [f"exp={name}", *overrides] if command == "config" else list(overrides)
        )


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("PROJECT_ROOT", str(ROOT))
    monkeypatch.delenv("DIR_LOGS", raising=False)


def targets(node) -> list[str]:
    if isinstance(node, dict):
        own = [node["_target_"]] if "_target_" in node else []
        return own + [t for value in node.values() for t in targets(value)]
    return [t for value in node for t in targets(value)] if isinstance(node, list) else []


def test_the_experiments_there_are():
    instruments = ("flute", "violin", "bassoon", "cello", "trumpet")
    expected = {f"{name}_{kind}" for name in instruments for kind in ("latent", "small", "melody")}
    others = {"pitch_flute_latent", "pitch_flute_small", "all_small", "codec_small", "classifier"}
    others |= {"distill_small", "all_melody"}
    assert set(EXPERIMENTS) == expected | others


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_names_what_exists(name):
    given = ["teacher=flute"] if name == "distill_small" else []
    config = composed(name, "dataset_path=data", "exp_tag=tag", *given)
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert plain["exp_name"] == name and plain["run_dir"] == str(ROOT / "logs" / "tag")
    found = targets(plain)
    assert len(found) > 8 and all(callable(get_object(target)) for target in found)
    assert plain["callbacks"]["best"]["monitor"] == "valid_loss"
    data = plain["datamodule"]
    assert data.get("dataset", data)["path"] == "data"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_help_lists_every_experiment(name):
    assert f" {name} " in (ROOT / "configs/config.yaml").read_text().replace("\n", " \n ")


@pytest.mark.parametrize("name", LATENT)
def test_the_originals_keys(name):
    config = composed(name)
    missing = [
        key for key in KEYS.split() if OmegaConf.select(config, key, default="absent") == "absent"
    ]
    assert set(missing) <= {"dataset_path"} and OmegaConf.is_missing(config, "dataset_path")
    assert config.sigma_max == (100 if name in ("flute_latent", "violin_latent") else 5)
    assert (config.sigma_min, config.rho, config.length, config.datamodule.batch_size) == (
        0.001,
        9.0,
        409600,
        32,
    )
    assert config.instruments == [name.removeprefix("pitch_").removesuffix("_latent")]
    overridden = composed(name, "+dataset_path=a", "+ckpt=b", "model.lr=1e-3", "trainer=cpu")
    assert (
        overridden.dataset_path,
        overridden.ckpt,
        overridden.model.lr,
        overridden.trainer.gpus,
    ) == (
        "a",
        "b",
        1e-3,
        0,
    )


@pytest.mark.parametrize("name", LATENT)
def test_latent_experiments_build_the_papers_model(name):
    config = composed(name, "codec.weights=random", "dataset_path=data")
    with torch.device("meta"):
        module = instantiate(config.model, codec=instantiate(config.codec))
    module.level = torch.tensor(0.1)
    # The paper gives four digits.
    assert sum(p.numel() for p in module.denoiser.parameters()) == pytest.approx(302.3e6, rel=1e-3)
    assert (
        module.spec.frames == 1280
        and module.spec.codec == "encodec"
        and module.spec.sigma_max == config.sigma_max
    )


@pytest.mark.parametrize("name", SMALL)
def test_small_experiments_build(name, recordings, tmp_path):
    """Everything that the command builds, with an untrained small codec."""
    instrument = "violin" if name != "flute_small" else "flute"
    overrides = [
        f"instruments=[{instrument}]",
        f"logs_dir={tmp_path}",
        "exp_tag=tag",
    ]
    overrides += [
        "codec=small_untrained",
        *(f"+codec.{k}={v}" for k, v in TINY_CODEC.items()),
        "trainer=cpu",
    ]
    config = composed(name, *overrides)
    config.dataset_path = str(recordings)
    module = instantiate(config.model, codec=instantiate(config.codec))
    assert module.spec.name == instrument and module.spec.frames == 256
    assert (
        2e6 < sum(p.numel() for p in module.denoiser.parameters()) < 3.5e6
    )  # at most 7 MB in half precision
    data = instantiate(config.datamodule)
    assert (
        data.train_set.variation.augment is not None and len(data.train_set) == 16 * 16
    )  # crops of four files
    callbacks = [instantiate(node) for node in config.callbacks.values() if node is not None]
    loggers = [instantiate(node) for node in config.loggers.values() if node is not None]
    trainer = instantiate(
        config.trainer, callbacks=callbacks, logger=loggers, default_root_dir=str(tmp_path)
    )
    assert trainer.max_steps == config.total_steps and trainer.max_epochs == -1
    assert {c.dirpath for c in trainer.checkpoint_callbacks} == {
        str(tmp_path / "tag" / "checkpoints")
    }
    assert Path(loggers[0].log_dir) == tmp_path / "tag" / "tensorboard"


def test_small_experiments_differ_by_the_instrument_only():
    """... and by the octaves that bring it into the others' ranges."""
    first = OmegaConf.to_yaml(composed("flute_small", "octaves=null"))
    for name in SMALL:
        assert composed(name).octaves and composed(name).labels == ["plain", "varied"]
        here = OmegaConf.to_yaml(composed(name, "octaves=null"))
        assert here.replace(name.removesuffix("_small"), "flute") == first


def test_one_model_of_all_instruments_builds():
    config = composed(
        "all_small", "codec=small_untrained", *(f"+codec.{k}={v}" for k, v in TINY_CODEC.items())
    )
    module = instantiate(config.model, codec=instantiate(config.codec))
    assert Labels(module.spec.labels).instruments == tuple(config.instruments) == INSTRUMENTS
    assert (
        module.spec.name == "all" and tuple(config.datamodule.dataset.labels) == module.spec.labels
    )
    assert Labels(module.spec.labels).has_conditions
    # at most the size of two models of one instrument
    assert sum(p.numel() for p in module.denoiser.parameters()) < 6.5e6


def test_pitch_shifted_flute():
    assert composed("pitch_flute_small").sign == -1
    first = OmegaConf.to_yaml(composed("flute_small", "octaves=null", "labels=null"))
    assert (
        OmegaConf.to_yaml(composed("pitch_flute_small", "sign=null", "exp_name=flute_small"))
        == first
    )


@pytest.mark.parametrize("choice", ["csv", "wandb", "many", "[tensorboard,csv]"])
def test_loggers_can_be_chosen(choice):
    found = targets(OmegaConf.to_container(composed("flute_small", f"loggers={choice}").loggers))
    assert all(callable(get_object(target)) for target in found)
    names = {"csv": "CSV", "wandb": "Wandb", "many": "TensorBoard CSV Wandb"}.get(
        choice, "TensorBoard CSV"
    ).split()
    assert found == [f"pytorch_lightning.loggers.{name}Logger" for name in names]


@pytest.mark.parametrize("choice", ["joblib", "slurm", "submitit_local"])
def test_launchers_can_be_chosen(choice):
    """They come with an extra; without it the error says which."""
    launcher = "joblib" if choice == "joblib" else "submitit"
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        if importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec(
            f"hydra_plugins.hydra_{launcher}_launcher"
        ):
            config = compose(
                "config", ["exp=flute_small", f"launcher={choice}"], return_hydra_config=True
            )
            expected = {
                "joblib": "JoblibLauncher",
                "slurm": "SlurmLauncher",
                "submitit_local": "LocalLauncher",
            }[choice]
            assert config.hydra.launcher._target_.endswith(f".{expected}")
        else:
            with pytest.raises(MissingConfigException) as error:
                compose("config", ["exp=flute_small", f"launcher={choice}"])
            assert one_line(error.value).endswith(
                "pip install hydra-joblib-launcher hydra-submitit-launcher"
            )


def test_transfer_composes():
    config = composed("", "source=flute", command="transfer")
    assert {"source", "target", "input", "output", "sigma", "num_steps", "solver", "plot"} <= set(
        config
    )
