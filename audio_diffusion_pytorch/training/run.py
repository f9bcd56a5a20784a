"""Build, prepare and fit a training run."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from audio_diffusion_pytorch.data.datamodule import Datamodule
from audio_diffusion_pytorch.data.loader import explain_loader_error
from audio_diffusion_pytorch.data.packed_datamodule import PackedDatamodule
from audio_diffusion_pytorch.errors import InputError, Interrupted
from audio_diffusion_pytorch.training import checks, resume
from audio_diffusion_pytorch.training.base_module import TrainingModule
from audio_diffusion_pytorch.training.dry_run import dry_run
from audio_diffusion_pytorch.training.instrument_module import InstrumentModule
from audio_diffusion_pytorch.training.loggers import log_config
from audio_diffusion_pytorch.training.processes import check_sweep, ending_together, requeue
from audio_diffusion_pytorch.training.run_folder import prepare_run_folder, resume_arguments
from audio_diffusion_pytorch.training.schedule import (
    ScheduledValidation,
    planned_batches,
    planned_steps,
    validation_interval,
)
from audio_diffusion_pytorch.training.summary import summary
from audio_diffusion_pytorch.training.trainer import settings_of
from audio_diffusion_pytorch.utils.registry import import_plugins
from audio_diffusion_pytorch.utils.threads import parameters, set_threads


@dataclass
class TrainingRun:
    """One run in a folder that no other run uses.

    Args:
        cfg: adapted configuration, with the resolved path of the checkpoint in `ckpt`.
        trainer: trainer with callbacks and loggers.
        datamodule: data of the run, an own `LightningDataModule` or a `Datamodule`.
        module: module in training.
    """

    cfg: DictConfig
    trainer: pl.Trainer
    datamodule: pl.LightningDataModule
    module: TrainingModule

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return Path(self.cfg.run_dir)

    @property
    def ckpt_dir(self) -> Path:
        """Folder of the checkpoints."""
        return Path(self.cfg.ckpt_dir)

    @property
    def exported(self) -> Path:
        """Path of the exported model."""
        return self.folder / f"{self.cfg.exp_name}.safetensors"

    @cached_property
    def how_to_resume(self) -> str:
        """Arguments that resume this run."""
        return resume_arguments(self.folder, self.ckpt_dir, Path(self.cfg.logs_dir))

    def report(self) -> str:
        """Describe the data, the requirements and the duration of the run; train nothing."""
        return "\n".join(dry_run(self.module, self.datamodule, self.trainer, self.folder))

    def prepare(self) -> None:
        """Fill the latent cache, compute the latent statistics and write the configuration.

        Raises:
            InputError: the cache cannot be used or written, or no recording is usable.
        """
        self.module.use_cache(self.datamodule, self.trainer.strategy.root_device)
        # One process writes; the other processes receive the statistics from it.
        if self.trainer.is_global_zero:
            self.module.prepare(self.datamodule, self.folder, self.cfg.ckpt)
            text = OmegaConf.to_yaml(self.cfg, resolve=True)
            prepare_run_folder(self.folder, self.ckpt_dir, text)

    def fit(self) -> dict[str, float]:
        """Train, export the model and print a summary.

        Returns:
            The latest values of all logged figures.

        Raises:
            InputError: a problem that the user can solve ended the training.
            Interrupted: a signal ended the training after its state was saved.
        """
        if self.trainer.is_global_zero:
            self._announce()
        with explain_errors(self):
            self.trainer.fit(
                self.module, self.datamodule, ckpt_path=self.cfg.ckpt, weights_only=True
            )
        if self.trainer.is_global_zero:
            self.module.export(self.exported)
            plugins = import_plugins(self.cfg.plugins)
            print(summary(self.trainer, self.module, self.folder, self.exported, plugins))
        return {key: float(value) for key, value in self.trainer.callback_metrics.items()}

    def _announce(self) -> None:
        if isinstance(self.datamodule, Datamodule):
            self.datamodule.announce()
        # The export of a finished run that resumes would be older than the new checkpoints.
        self.exported.unlink(missing_ok=True)
        content = OmegaConf.to_container(self.cfg, resolve=True)
        log_config(self.trainer.loggers, content, OmegaConf.to_yaml(self.cfg, resolve=True))


def build_run(cfg: DictConfig) -> TrainingRun:
    """Build everything that a configuration describes, and check that the parts fit.

    Args:
        cfg: adapted configuration, with the resolved path of the checkpoint in `ckpt`.

    Raises:
        InputError: a setting is wrong, the data are unusable, or the checkpoint does not fit.
    """
    saved = resume.check_resumable(cfg.ckpt) if cfg.ckpt is not None else None
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")
    # The optimiser's moments of weights at rest decay to denormal numbers, which slow a CPU down.
    torch.set_flush_denormal(True)

    trainer = _build_trainer(cfg)
    check_sweep(trainer.world_size)
    datamodule = instantiate(cfg.datamodule)
    codec = instantiate(cfg.codec)
    module = instantiate(cfg.model, codec=codec)
    if not isinstance(module, TrainingModule):
        raise InputError(
            f"model._target_={cfg.model._target_} must be a subclass of "
            "audio_diffusion_pytorch.training.base_module.TrainingModule"
        )
    on_cpu = trainer.strategy.root_device.type == "cpu"
    set_threads(parameters(module), trainer.num_devices if on_cpu else 1, spare=True)
    if isinstance(datamodule, Datamodule):
        datamodule.fill(trainer.world_size)
        if saved is not None:
            datamodule.load_state_dict(saved.data)
        checks.check_rate(datamodule, codec)
    elif isinstance(datamodule, PackedDatamodule):
        if not isinstance(module, InstrumentModule):
            raise InputError(
                "datamodule=packed needs an experiment that trains an instrument on a frozen codec"
            )
        datamodule.check_fits(codec, module.melody_channels)
    if isinstance(datamodule, (Datamodule, PackedDatamodule)):
        steps = planned_steps(datamodule, trainer)[1]
        checks.check_length(steps, module.hparams.get("total_steps"))
    if _schedules_validation(cfg):
        interval = validation_interval(planned_batches(datamodule, trainer))
        trainer.callbacks.insert(0, ScheduledValidation(interval))
    if saved is not None:
        resume.check_compatible(saved, module, datamodule, cfg.ckpt, settings_of(trainer))
    elif cfg.init_from is not None:
        resume.initialise_from(module, cfg.init_from)
    return TrainingRun(cfg, trainer, datamodule, module)


def _build_trainer(cfg: DictConfig) -> pl.Trainer:
    callbacks = [instantiate(node) for node in cfg.callbacks.values() if node is not None]
    loggers: list[Logger] = [instantiate(node) for node in cfg.loggers.values() if node is not None]
    # `ScheduledValidation` replaces this interval once the length of the run is known.
    settings = {"val_check_interval": 1} if _schedules_validation(cfg) else {}
    return instantiate(
        cfg.trainer,
        callbacks=callbacks,
        logger=loggers,
        default_root_dir=str(cfg.run_dir),
        **settings,
    )


def _schedules_validation(cfg: DictConfig) -> bool:
    """Return whether the length of the run determines the validation interval."""
    trainer = cfg.trainer
    unset = "val_check_interval" in trainer and trainer.val_check_interval is None
    return unset and not trainer.get("max_time")


def instantiate(node: DictConfig, **kwargs: Any) -> Any:
    """Build the object of a configuration node; unwrap errors of its constructor.

    Args:
        node: configuration with a `_target_`.
        **kwargs: further arguments of the constructor.

    Raises:
        InputError: the target does not exist or refuses its arguments.
    """
    try:
        return hydra.utils.instantiate(node, **kwargs)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, InputError):
            raise cause from None
        raise InputError(f"{node.get('_target_')}: {cause or error}") from error


@contextmanager
def explain_errors(run: TrainingRun) -> Iterator[None]:
    """Translate errors inside the block into messages with the arguments that resume the run.

    Raises:
        InputError: memory, disk or the loader's processes failed.
        Interrupted: a signal ended the training after its state was saved.
        KeyboardInterrupt: a second Ctrl-C ended the training.
    """
    advice = f"resume with {run.how_to_resume}"
    try:
        with ending_together(run.trainer):
            yield
    except Interrupted as interrupt:
        requested = interrupt.signal == getattr(signal, "SIGUSR1", None)
        if requested and run.trainer.is_global_zero:
            print(requeue())
        raise Interrupted(interrupt.signal, f"{interrupt}; {advice}") from None
    except SystemExit:  # Lightning's end after a second Ctrl-C
        saved = (run.ckpt_dir / "last.ckpt").is_file()
        hint = advice if saved else "nothing was saved yet"
        raise KeyboardInterrupt(f"stopped at step {run.trainer.global_step}; {hint}") from None
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"the GPU is out of memory: lower datamodule.batch_size ({error})"
        ) from error
    except RuntimeError as error:
        raise explain_loader_error(error, run.how_to_resume) from error
    except OSError as error:
        if error.filename is not None:
            raise
        raise InputError(
            f"cannot write to {run.folder}: {error.strerror}; free space and {advice}"
        ) from error
