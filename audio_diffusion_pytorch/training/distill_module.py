"""Distil an instrument model: teach a copy of it to solve its ODE with a few evaluations.

The student is a denoiser inside a solver with few, fixed noise levels. It regresses on the
teacher's solutions, in both directions, with gradients through all steps of the solver. At the
fixed levels it may deviate from the teacher: only the result counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
from audio_diffusion_pytorch.diffusion.sampling import multistep_rows
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.fitted_schedules import DIRECTIONS, weights_digest
from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.models.labels import RECORDING_CONDITIONS
from audio_diffusion_pytorch.models.loading import load_instrument
from audio_diffusion_pytorch.models.networks import build_network
from audio_diffusion_pytorch.models.students import CONDITIONS, StudentSpec, save_student
from audio_diffusion_pytorch.training.base_module import FrozenCodecModule
from audio_diffusion_pytorch.training.ema import EMA
from audio_diffusion_pytorch.training.solution_datamodule import Examples, SolutionDatamodule

_GOLDEN = (5**0.5 - 1) / 2  # its multiples fill the interval from 0 to 1 evenly
_LABELS = torch.tensor([RECORDING_CONDITIONS.index(CONDITIONS[name]) for name in DIRECTIONS])


class DistillModule(FrozenCodecModule):
    """Train the student of an instrument model.

    Args:
        teacher: exported model to distil, see `load_instrument`.
        codec: codec of the teacher.
        to_noise: noise levels on the way to noise before the hand-off, rising.
        to_data: noise levels on the way to data after the hand-off, falling.
        cycle: weight of the way there and back, which returns to its start.
        splitting: weight of the difference between one step and two, see `_splitting_loss`.
        lr: learning rate of AdamW, the peak of a one-cycle learning rate.
        lr_beta1: decay of AdamW's first moment.
        lr_beta2: decay of AdamW's second moment.
        lr_weight_decay: weight decay of AdamW.
        ema_beta: highest decay of the average, see `EMA`.
        ema_power: exponent of the warm-up of the average, see `EMA`.
        total_steps: steps of a one-cycle learning rate; None: constant.

    Raises:
        InputError: the teacher is not an exported model of one instrument, or uses another codec.
    """

    ema: EMA[Denoiser]

    def __init__(
        self,
        teacher: str,
        codec: Codec,
        to_noise: Sequence[float] = (0.1, 0.4),
        to_data: Sequence[float] = (0.9, 0.15),
        cycle: float = 0.0,
        splitting: float = 0.0,
        lr: float = 1.5e-4,
        lr_beta1: float = 0.9,
        lr_beta2: float = 0.99,
        lr_weight_decay: float = 1e-3,
        ema_beta: float = 0.995,
        ema_power: float = 0.7,
        total_steps: int | None = None,
    ):
        super().__init__(codec)
        # Plain numbers: checkpoints hold no others.
        to_noise, to_data = [float(one) for one in to_noise], [float(one) for one in to_data]
        for name, falling in (("to_noise", to_noise[::-1]), ("to_data", to_data)):
            if not (len(to_noise) == len(to_data) > 0 and _fall(falling)):
                raise InputError(
                    f"model.to_noise={to_noise} must rise and model.to_data={to_data} must fall, "
                    f"with as many positive levels: change model.{name}"
                )
        self.save_hyperparameters(ignore=["codec"])
        model = load_instrument(teacher)
        if model.file is None or model.spec.labels not in ((), RECORDING_CONDITIONS):
            raise InputError(
                f"teacher={teacher} is not an exported model of one instrument: export it first, "
                "with scripts/export_model.py"
            )
        if len(model.mean) != codec.latent_channels:
            raise InputError(
                f"teacher={teacher} was trained on the codec {model.spec.codec}, not {codec.name}: "
                "set codec= to that codec"
            )
        self.unet = {**model.spec.unet, "end_level": True}
        self._teacher = [model]  # in a list: its weights are no part of checkpoints
        net = build_network(model.spec.network, self.unet)
        self.denoiser = Denoiser(net, model.spec.sigma_data)
        net.load_state_dict({**net.state_dict(), **model.denoiser.net.state_dict()})
        self.ema = EMA(self.denoiser, ema_beta, ema_power)
        self._range: tuple[float, float] = (0.0, 0.0)
        self._guidance = self._label_guidance = 1.0

    @property
    def teacher(self) -> InstrumentModel:
        """The model to distil."""
        return self._teacher[0]

    @property
    def trained(self) -> Denoiser:
        """The student in training."""
        return self.denoiser

    def prepare(self, datamodule: pl.LightningDataModule, run_dir: Path, ckpt: str | None) -> None:
        """Solve the teacher's ODEs, unless the run folder holds the solutions.

        Raises:
            InputError: the data are no solutions, or recordings are missing.
        """
        if not isinstance(datamodule, SolutionDatamodule):
            raise InputError("exp=distill_small needs datamodule=solutions")
        low, high = self._range = datamodule.sigmas
        if max(*self.hparams.to_noise, *self.hparams.to_data) >= low:
            raise InputError(
                f"model.to_noise and model.to_data must lie below {low:g}, the lowest hand-off "
                f"level of the bridges ({low:g} to {high:g})"
            )
        self._guidance = datamodule.guidance
        self._label_guidance = datamodule.label_guidance
        datamodule.make()

    def solve(self, denoiser: Denoiser, batch: Examples) -> Tensor:
        """Solve the ODE with a student, from the start of each example.

        Args:
            denoiser: the student.
            batch: examples.

        Returns:
            Latents at the other end [B, D, L]: the data, or the noise scaled as in `Examples`.
        """
        start, scale = self._start(denoiser, batch)
        return self._map(denoiser, batch, start, self._levels(batch)) / scale[:, 1]

    def _levels(self, batch: Examples) -> Tensor:
        """Return the noise levels of the solver [B, N] from the start of each example."""
        h, sigma = self.hparams, batch.sigma
        low = torch.tensor([*reversed(h.to_noise)]), torch.tensor(h.to_data)
        up, down = (
            torch.cat([sigma[:, None], one.to(sigma).expand(len(sigma), -1)], 1) for one in low
        )
        return torch.where((batch.direction == 0)[:, None], up.flip(1), down)

    def _start(self, denoiser: Denoiser, batch: Examples) -> tuple[Tensor, Tensor]:
        """Return the starts [B, D, L], and the scales of both ends in `Examples` [B, 2, 1, 1]."""
        noise = (batch.sigma**2 + denoiser.sigma_data**2).sqrt()
        scale = torch.stack([torch.ones_like(noise), noise], 1)
        upwards = (batch.direction == 0)[:, None]
        scale = torch.where(upwards, scale, scale.flip(1))[:, :, None, None]
        return torch.where(upwards[..., None], batch.data, batch.noise) * scale[:, 0], scale

    def _map(self, denoiser: Denoiser, batch: Examples, x: Tensor, levels: Tensor) -> Tensor:
        """Solve the ODE of each example from x [B, D, L] over levels [B, N]."""
        given: dict[str, Any] = {"end": levels[:, -1]}
        if self.teacher.spec.labels:
            given["label"] = _LABELS.to(self.device)[batch.direction]
        if batch.melody.shape[1]:
            given |= denoiser.melody_conditions(batch.melody)
        return multistep_rows(partial(denoiser, **given), x, levels)

    def training_step(self, batch: Examples, batch_idx: int) -> Tensor:
        """Return the loss of a batch: the squared error at the end of the solver."""
        batch = batch.single()
        found = self.solve(self.denoiser, batch)
        loss = (found - _end(batch)).square().mean()
        if self.hparams.cycle:
            loss = loss + self.hparams.cycle * self._cycle_loss(batch, found)
        if self.hparams.splitting:
            loss = loss + self.hparams.splitting * self._splitting_loss(batch)
        self.log("train_loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def _cycle_loss(self, batch: Examples, found: Tensor) -> Tensor:
        """Return the squared error after the way there and back."""
        start = torch.where((batch.direction == 0)[:, None, None], batch.data, batch.noise)
        back = batch._replace(data=found, noise=found, direction=1 - batch.direction)
        return (self.solve(self.denoiser, back) - start).square().mean()

    def _splitting_loss(self, batch: Examples) -> Tensor:
        """Return the squared difference between one step over the whole way and two over its parts.

        Each example is split at another place. Source: SplitMeanFlow (arXiv 2507.16884).
        """
        start, scale = self._start(self.denoiser, batch)
        first, last = self._levels(batch)[:, [0, -1]].unbind(1)
        places = torch.arange(len(first), device=first.device) + self.global_step * len(first)
        place = places * _GOLDEN % 1  # equal in a resumed run
        middle = (first.log() * (1 - place) + last.log() * place).exp()
        with torch.no_grad():
            x = self._map(self.denoiser, batch, start, torch.stack([first, middle], 1))
            two = self._map(self.denoiser, batch, x, torch.stack([middle, last], 1))
        one = self._map(self.denoiser, batch, start, torch.stack([first, last], 1))
        return ((one - two) / scale[:, 1]).square().mean()

    def validation_step(self, batch: Examples, batch_idx: int) -> None:
        """Log the relative errors at the end of the solver, with the averaged weights."""
        batch = batch.single()
        expected = _end(batch)
        found = self.solve(self.ema.model, batch)
        errors = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
        logged = {"valid_loss": errors}
        for index, direction in enumerate(DIRECTIONS):
            logged[f"valid_{direction}"] = errors[batch.direction == index]
        for name, values in logged.items():
            if len(values):
                bar = name == "valid_loss"
                options = {"on_epoch": True, "batch_size": len(values), "sync_dist": True}
                self.log(name, values.mean(), prog_bar=bar, **options)

    def describe(self) -> dict[str, Any]:
        """Return the values that a resumed run must share."""
        return {"name": self.teacher.spec.name, "codec": self.codec.name}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the description of the student."""
        checkpoint["instrument"] = self.describe()

    def export(self, path: Path) -> None:
        """Write the averaged student in half precision to `path`."""
        model, h = self.teacher, self.hparams
        assert model.file is not None
        spec = StudentSpec(
            name=model.spec.name,
            teacher=weights_digest(model.file),
            network=model.spec.network,
            unet=self.unet,
            sigma_data=model.spec.sigma_data,
            levels={"to_noise": (*reversed(h.to_noise),), "to_data": tuple(h.to_data)},
            sigmas=self._range,
            labels=tuple(model.spec.labels),
            steps=self.global_step,
            guidance=self._guidance,
            label_guidance=self._label_guidance,
        )
        save_student(path, spec, self.ema.model.net.state_dict())


def _fall(levels: Sequence[float]) -> bool:
    return all(high > low for high, low in pairwise([*levels, 0.0]))


def _end(batch: Examples) -> Tensor:
    return torch.where((batch.direction == 0)[:, None, None], batch.noise, batch.data)
