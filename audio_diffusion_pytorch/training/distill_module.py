"""Distil an instrument model: teach a network the flow maps of its ODE, in a few steps.

The student regresses on solutions of the teacher's ODE at the ends of its steps, in both
directions. As in a bridge, each step starts where the student's last one ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.diffusion.flow_map import FlowMap
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.fitted_schedules import DIRECTIONS, weights_digest
from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.models.labels import RECORDING_CONDITIONS
from audio_diffusion_pytorch.models.loading import load_instrument
from audio_diffusion_pytorch.models.networks import build_network
from audio_diffusion_pytorch.models.students import CONDITIONS, StudentSpec, save_student
from audio_diffusion_pytorch.training.base_module import FrozenCodecModule
from audio_diffusion_pytorch.training.ema import EMA
from audio_diffusion_pytorch.training.trajectory_datamodule import (
    Trajectories,
    TrajectoryDatamodule,
)

_LABELS = torch.tensor([RECORDING_CONDITIONS.index(CONDITIONS[name]) for name in DIRECTIONS])


class DistillModule(FrozenCodecModule):
    """Train the student of an instrument model.

    Args:
        teacher: exported model to distil, see `load_instrument`.
        codec: codec of the teacher.
        inner: noise levels between the data end and the hand-off, rising.
        sigma_min: noise level at the data end.
        splitting: weight of the map over all levels in one step, which the single steps split.
        cycle: weight of the way back: the map to data, applied to the student's own noise, returns
            to the latents, and the map to noise, applied to its own latents, to the noise.
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

    ema: EMA[FlowMap]

    def __init__(
        self,
        teacher: str,
        codec: Codec,
        inner: Sequence[float] = (0.8,),
        sigma_min: float = 0.02,
        splitting: float = 0.0,
        cycle: float = 0.0,
        lr: float = 5e-4,
        lr_beta1: float = 0.9,
        lr_beta2: float = 0.99,
        lr_weight_decay: float = 1e-3,
        ema_beta: float = 0.995,
        ema_power: float = 0.7,
        total_steps: int | None = None,
    ):
        super().__init__(codec)
        inner = [float(level) for level in inner]  # plain numbers: checkpoints hold no others
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
        self.flow = FlowMap(build_network(model.spec.network, self.unet), model.spec.sigma_data)
        self.flow.net.load_state_dict(
            {**self.flow.net.state_dict(), **model.denoiser.net.state_dict()}
        )
        self.ema = EMA(self.flow, ema_beta, ema_power)
        self._range: tuple[float, float] = (0.0, 0.0)

    @property
    def teacher(self) -> InstrumentModel:
        """The model to distil."""
        return self._teacher[0]

    @property
    def trained(self) -> FlowMap:
        """The student in training."""
        return self.flow

    def prepare(self, datamodule: pl.LightningDataModule, run_dir: Path, ckpt: str | None) -> None:
        """Solve the teacher's ODEs, unless the run folder holds the solutions.

        Raises:
            InputError: the data are no trajectories, or recordings are missing.
        """
        if not isinstance(datamodule, TrajectoryDatamodule):
            raise InputError("exp=distill_small needs datamodule=trajectories")
        datamodule.make(run_dir)
        self._range = datamodule.sigmas

    def solve(self, flow: FlowMap, batch: Trajectories) -> list[Tensor]:
        """Follow the student from the first level of each trajectory.

        Args:
            flow: the student.
            batch: trajectories.

        Returns:
            Scaled latents [B, D, L] at each further level, see `Trajectories`.
        """
        label = _LABELS.to(self.device)[batch.direction] if self.teacher.spec.labels else None
        melody = batch.melody if batch.melody.shape[1] else None
        x = batch.points[:, 0] / self._scale(batch.sigmas[:, 0])
        found = []
        for sigma, end in pairwise(batch.sigmas.unbind(1)):
            x = flow(x, sigma, end, label=label, melody=melody)
            found.append(x * self._scale(end))
        return found

    def _scale(self, sigma: Tensor) -> Tensor:
        return (sigma**2 + self.flow.sigma_data**2).rsqrt()[:, None, None]

    def training_step(self, batch: Trajectories, batch_idx: int) -> Tensor:
        """Return the loss of a batch: squared errors of the scaled latents at all levels."""
        batch = batch.single()
        found = torch.stack(self.solve(self.flow, batch), 1)
        loss = (found - batch.points[:, 1:]).square().mean()
        if self.hparams.splitting:
            ends = [0, -1]
            whole = batch._replace(points=batch.points[:, ends], sigmas=batch.sigmas[:, ends])
            error = (self.solve(self.flow, whole)[0] - whole.points[:, 1]).square().mean()
            loss = loss + self.hparams.splitting * error
        if self.hparams.cycle:
            loss = loss + self.hparams.cycle * self._cycle_loss(batch, found[:, -1])
        self.log("train_loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def _cycle_loss(self, batch: Trajectories, found: Tensor) -> Tensor:
        """Return the squared error after the way there and back."""
        points = torch.stack([found, *batch.points.unbind(1)[-2::-1]], 1)
        back = batch._replace(
            points=points, sigmas=batch.sigmas.flip(1), direction=1 - batch.direction
        )
        return (self.solve(self.flow, back)[-1] - batch.points[:, 0]).square().mean()

    def validation_step(self, batch: Trajectories, batch_idx: int) -> None:
        """Log the relative errors of the last level, with the averaged weights."""
        batch = batch.single()
        expected = batch.points[:, -1]
        found = self.solve(self.ema.model, batch)[-1]
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
            sigma_min=h.sigma_min,
            inner=tuple(h.inner),
            sigmas=self._range,
            labels=tuple(model.spec.labels),
            steps=self.global_step,
        )
        save_student(path, spec, self.ema.model.net.state_dict())
