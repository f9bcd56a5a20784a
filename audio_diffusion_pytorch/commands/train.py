"""Train an instrument's latent diffusion model, or the small codec.

python train.py exp=flute_latent dataset_path=FOLDER
"""

import logging
import os
import re
import signal
import sys
import warnings
from contextlib import ExitStack, suppress
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from audio_diffusion_pytorch.cli import plain_warnings, run_command, start
from audio_diffusion_pytorch.command_line import fold_experiments, typed
from audio_diffusion_pytorch.compat.config import adapt, arithmetic
from audio_diffusion_pytorch.errors import InputError, Interrupted
from audio_diffusion_pytorch.models.labels import Labels
from audio_diffusion_pytorch.paths import CONFIGS, INSTALLED, ROOT
from audio_diffusion_pytorch.utils.registry import import_plugins

os.environ["PROJECT_ROOT"] = str(ROOT)  # where configs/config.yaml finds exp/
if INSTALLED:
    os.environ.setdefault("DIR_LOGS", str(Path.cwd() / "logs"))
USAGE_ERRORS = (HydraException, OmegaConfBaseException, OSError)
PATH_KEYS = (
    "dataset_path",
    "ckpt",
    "init_from",
    "mean_path",
    "std_path",
    "logs_dir",
    "ckpt_dir",
    "exp_tag",
    "codec.repository",
    "codec.weights",
    "datamodule.cache_dir",
    "datamodule.dataset.pitch_shift.cache",
    "hydra.run.dir",
    "hydra.sweep.dir",
    "callbacks.preview.clip",
    "callbacks.preview.other",
)
SWITCHES = ("dry_run", "train", "compile", "print_config", "ignore_warnings")
OmegaConf.register_new_resolver("eval", arithmetic, replace=True)
OmegaConf.register_new_resolver(
    "num_labels", lambda labels: Labels(labels or ()).count, replace=True
)


def train(cfg: DictConfig) -> dict[str, float]:
    """Instantiate, fit, export; returns the last values of everything logged.

    Raises:
        InputError: something in the configuration or the data cannot be used.
    """
    if "model" not in cfg:
        raise InputError(
            f"no experiment given: add exp=NAME, for example exp=flute_small; {typed('train')} --help lists them"
        )
    for key in SWITCHES:
        if not isinstance(cfg[key], bool):
            raise InputError(f"{key}={cfg[key]}: give true or false")
    if cfg.ignore_warnings:
        warnings.simplefilter("ignore")
    import_plugins(cfg.plugins)
    cfg = adapt(cfg)
    if cfg.get("instruments") is None and OmegaConf.is_interpolation(cfg, "instrument_name"):
        cfg.instrument_name = "instrument"  # every file, whatever it is of
    if cfg.print_config:
        print(OmegaConf.to_yaml(cfg, resolve=True))
    run_dir, ckpt_dir = Path(cfg.run_dir), Path(cfg.ckpt_dir)
    if cfg.save is None and OmegaConf.is_missing(cfg, "dataset_path"):
        raise InputError("no data given: add dataset_path=FOLDER, a folder of recordings")
    from pytorch_lightning.utilities import rank_zero_only

    from audio_diffusion_pytorch.training.checks import check_numbers
    from audio_diffusion_pytorch.training.run_folder import (
        check_unused,
        find_checkpoint,
        lock_folder,
    )

    if cfg.save is not None:
        ckpt = find_checkpoint(cfg.ckpt, ckpt_dir)
        if ckpt is None:
            raise InputError(f"save={cfg.save} needs ckpt=FILE, the checkpoint to take it from")
        from audio_diffusion_pytorch.training.save_part import save_attribute

        print(f"saved: {save_attribute(ckpt, cfg.save, cfg.run_dir)}")
        return {}
    check_numbers(cfg)
    if cfg.ckpt not in (None, "auto") and cfg.init_from is not None:
        raise InputError(
            f"ckpt={cfg.ckpt} goes on from there, init_from={cfg.init_from} starts anew: give one of them"
        )

    with ExitStack() as stack:
        if rank_zero_only.rank == 0:
            for folder in [run_dir] if run_dir in ckpt_dir.parents else [run_dir, ckpt_dir]:
                stack.enter_context(lock_folder(folder))
        cfg.ckpt = find_checkpoint(
            cfg.ckpt, ckpt_dir
        )  # with the lock: the run before may just save its last
        goes_on = cfg.ckpt is not None and Path(cfg.ckpt).resolve().parent == ckpt_dir.resolve()
        if rank_zero_only.rank == 0 and cfg.train and not cfg.dry_run and not goes_on:
            check_unused(ckpt_dir)
        return fit(cfg)


def fit(cfg: DictConfig) -> dict[str, float]:
    """`train`, in a folder that is this run's alone."""
    import pytorch_lightning as pl
    import torch

    from audio_diffusion_pytorch.data.datamodule import Datamodule
    from audio_diffusion_pytorch.data.loader import explain_loader_error
    from audio_diffusion_pytorch.training import checks, resume
    from audio_diffusion_pytorch.training import run_folder as run
    from audio_diffusion_pytorch.training.checks import check_length
    from audio_diffusion_pytorch.training.dry_run import dry_run, planned_batches, planned_steps
    from audio_diffusion_pytorch.training.loggers import log_config
    from audio_diffusion_pytorch.training.processes import ending_together, requeue
    from audio_diffusion_pytorch.training.schedule import ScheduledValidation, validation_interval
    from audio_diffusion_pytorch.training.summary import summary
    from audio_diffusion_pytorch.training.trainer import settings_of
    from audio_diffusion_pytorch.utils.threads import parameters, set_threads

    run_dir, ckpt_dir = Path(cfg.run_dir), Path(cfg.ckpt_dir)
    saved = resume.check_resumable(cfg.ckpt) if cfg.ckpt is not None else None
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")
    torch.set_flush_denormal(
        True
    )  # the optimiser's moments of weights at rest shrink to where a CPU is slow

    callbacks = [instantiate(node) for node in cfg.callbacks.values() if node is not None]
    loggers = [instantiate(node) for node in cfg.loggers.values() if node is not None]
    settings = {"val_check_interval": 1} if validation_is_open(cfg) else {}
    trainer = instantiate(
        cfg.trainer, callbacks=callbacks, logger=loggers, default_root_dir=str(run_dir), **settings
    )
    check_sweep(trainer.world_size)
    datamodule = instantiate(cfg.datamodule)
    codec = instantiate(cfg.codec)
    module = instantiate(cfg.model, codec=codec)
    processes = trainer.num_devices if trainer.strategy.root_device.type == "cpu" else 1
    set_threads(parameters(module), processes, spare=True)
    if isinstance(datamodule, Datamodule):
        datamodule.fill(trainer.world_size)
        if saved is not None:
            datamodule.load_state_dict(saved["data"])
        checks.check_rate(datamodule, codec)
        check_length(planned_steps(datamodule, trainer)[1], module.hparams.get("total_steps"))
    if validation_is_open(cfg):
        trainer.callbacks.insert(
            0, ScheduledValidation(validation_interval(planned_batches(datamodule, trainer)))
        )
    if saved is not None:
        resume.check_compatible(saved, module, datamodule, cfg.ckpt, settings_of(trainer))
    elif cfg.init_from is not None:
        resume.initialise_from(module, cfg.init_from)
    if cfg.dry_run:
        print("\n".join(dry_run(module, datamodule, trainer, run_dir)))
        return {}
    if hasattr(module, "use_cache"):
        module.use_cache(datamodule, trainer.strategy.root_device)
    elif cfg.datamodule.get("cache") is True:
        raise InputError(
            "datamodule.cache=true goes with an instrument's experiment, whose codec is not trained"
        )
    if (
        trainer.is_global_zero
    ):  # what is written is written once; other processes get the statistics from this one
        module.prepare(datamodule, run_dir, cfg.ckpt)
        run.prepare_run_folder(run_dir, ckpt_dir, OmegaConf.to_yaml(cfg, resolve=True))
    if not cfg.train:
        print("train=false: everything is built, nothing is trained")
        return {}
    exported = run_dir / f"{cfg.exp_name}.safetensors"
    if trainer.is_global_zero:
        if isinstance(datamodule, Datamodule):
            datamodule.announce()
        exported.unlink(
            missing_ok=True
        )  # of a run that goes on after its end: from now on its checkpoints are newer
        log_config(
            loggers, OmegaConf.to_container(cfg, resolve=True), OmegaConf.to_yaml(cfg, resolve=True)
        )
    how_to_resume = run.resume_arguments(run_dir, ckpt_dir, Path(cfg.logs_dir))
    try:
        with ending_together(trainer):
            trainer.fit(module, datamodule, ckpt_path=cfg.ckpt, weights_only=True)
    except Interrupted as interrupt:
        if interrupt.signal == getattr(signal, "SIGUSR1", None) and trainer.is_global_zero:
            print(requeue())
        raise Interrupted(interrupt.signal, f"{interrupt}; resume with {how_to_resume}") from None
    except SystemExit:  # how Lightning ends after a Ctrl-C that did not wait
        hint = (
            f"resume with {how_to_resume}"
            if (ckpt_dir / "last.ckpt").is_file()
            else "nothing was saved yet"
        )
        raise KeyboardInterrupt(f"stopped at step {trainer.global_step}; {hint}") from None
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"the GPU's memory does not suffice: lower datamodule.batch_size ({error})"
        ) from error
    except RuntimeError as error:
        raise explain_loader_error(error, how_to_resume) from error
    except OSError as error:
        if error.filename is not None:
            raise
        raise InputError(
            f"cannot write to {run_dir}: {error.strerror}; free space and resume with {how_to_resume}"
        ) from error

    if trainer.is_global_zero:
        module.export(exported)
        print(summary(trainer, module, run_dir, exported, import_plugins(cfg.plugins)))
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


def validation_is_open(cfg: DictConfig) -> bool:
    """Whether the configuration leaves it to the run's length how often it validates."""
    trainer = cfg.trainer
    return (
        "val_check_interval" in trainer
        and trainer.val_check_interval is None
        and not trainer.get("max_time")
    )


def instantiate(node: DictConfig, **kwargs):
    """Build what `_target_` names; an error in there comes out as itself, not wrapped by Hydra."""
    try:
        return hydra.utils.instantiate(node, **kwargs)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, InputError):
            raise cause from None
        raise InputError(f"{node.get('_target_')}: {cause or error}") from error


def check_sweep(processes: int) -> None:
    """Refuse several processes in a sweep whose runs share this one.

    Lightning starts the others by this command line, which is that of the whole sweep, and they cannot be joined twice.
    """
    if processes == 1 or not HydraConfig.initialized():
        return
    config = HydraConfig.get()
    if config.mode == RunMode.MULTIRUN and not config.launcher._target_.endswith("SlurmLauncher"):
        raise InputError(
            f"a sweep (-m) cannot train in {processes} processes: add launcher=slurm, which gives each run a job of "
            "its own, or trainer.gpus=1, or start the runs one by one"
        )


def name_swept_experiment(argv: list[str]) -> None:
    """Hydra composes what is common to a sweep without what is swept; a setting of an experiment is then unknown.

    The first experiment of `-m exp=A,B` stands in for all, by an environment variable that configs/config.yaml reads.
    """
    for argument in argv if {"-m", "--multirun"} & set(argv) else ():
        if found := re.fullmatch(r"exp=([\w-]+)(,[\w-]+)+", argument):
            os.environ["SWEPT_EXP"] = found[1]


@hydra.main(config_path=str(CONFIGS), config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    metrics = {}
    plain_warnings()  # a launcher's processes begin here
    # The tag's default holds the time, which would move on until it is looked at again.
    cfg.run_dir = HydraConfig.get().runtime.output_dir
    cfg.exp_tag = Path(cfg.run_dir).name
    try:
        run_command(lambda: metrics.update(train(cfg)), USAGE_ERRORS)
    finally:
        with suppress(OSError):  # Hydra makes the folder; where nothing came of the run it is empty
            Path(cfg.run_dir).rmdir()
            for handler in [
                h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)
            ]:
                logging.getLogger().removeHandler(
                    handler
                )  # what is logged at exit would go into the folder
    return metrics.get("valid_loss")


def cli() -> None:
    """Run the command line as typed."""
    sys.argv[1:] = fold_experiments(sys.argv[1:])
    name_swept_experiment(sys.argv[1:])
    start(main, PATH_KEYS, USAGE_ERRORS)


if __name__ == "__main__":  # `python -m`, as the installed command runs it
    from audio_diffusion_pytorch.commands.train import cli

    cli()
