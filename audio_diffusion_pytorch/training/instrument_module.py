"""Train an instrument's denoiser: codec.encode -> normalise -> denoiser.loss -> AdamW -> EMA."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from audio_diffusion_pytorch.audio import to_db
from audio_diffusion_pytorch.bridge.noise_statistics import noise_of_instruments
from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.data.datamodule import Datamodule
from audio_diffusion_pytorch.data.latent_statistics import latent_statistics
from audio_diffusion_pytorch.data.melody_features import MelodyFeatures
from audio_diffusion_pytorch.data.packed import dequantise, dequantise_melody
from audio_diffusion_pytorch.data.packed_datamodule import PackedDatamodule
from audio_diffusion_pytorch.diffusion.coupling import ChunkCoupling
from audio_diffusion_pytorch.diffusion.denoiser import Denoiser, SigmaDistribution
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.activation_checkpointing import checkpoint_blocks
from audio_diffusion_pytorch.models.instrument import InstrumentModel, InstrumentSpec
from audio_diffusion_pytorch.models.labels import Labels, statistics_of
from audio_diffusion_pytorch.models.networks import network_name
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.pitch.melody_input import drop_melody
from audio_diffusion_pytorch.training.base_module import FrozenCodecModule
from audio_diffusion_pytorch.training.draws import DRAWS
from audio_diffusion_pytorch.training.ema import EMA
from audio_diffusion_pytorch.training.lightning_internals import attached_trainer
from audio_diffusion_pytorch.training.noise_recordings import validation_recordings
from audio_diffusion_pytorch.training.validation_loss import ValidationLoss
from audio_diffusion_pytorch.utils.checkpoint_io import load_tensor
from audio_diffusion_pytorch.utils.files import atomic_write
from audio_diffusion_pytorch.utils.settings import check_choice, check_number

# wav [B, 1, T], latents [B, D, L] or features [B, D + M, L]; or with labels [B]
Batch = Tensor | tuple[Tensor, Tensor]


class InstrumentModule(FrozenCodecModule):
    """Train an instrument's denoiser.

    Args:
        model: the network F of the denoiser.
        codec: wav <-> latents; frozen and excluded from checkpoints.
        sigma_distribution: noise levels of training.
        sigma_data: standard deviation of the normalised latents.
        lr: learning rate of AdamW, the peak of a one-cycle learning rate.
        lr_beta1: decay of AdamW's first moment.
        lr_beta2: decay of AdamW's second moment.
        lr_eps: epsilon of AdamW.
        lr_weight_decay: weight decay of AdamW.
        ema_beta: highest decay of the average, see `EMA`.
        ema_power: exponent of the warm-up of the average, see `EMA`.
        total_steps: steps of a one-cycle learning rate; None: constant.
        mean_path: file of the latents' mean, a 1-D tensor [D]; None: computed from the training
            files.
        std_path: file of the latents' standard deviation, likewise.
        name: name of the instrument, stored in exported models.
        length: samples of a training crop, stored in exported models as the bridge's window.
        coupling: optimal-transport coupling of noise and latents; None: independent noise.
        labels: instruments and recording conditions, see `Labels`; the data set then returns (wav,
            label). The latents of each instrument are normalised by its own statistics: the label,
            not the average spectrum, identifies the instrument.
        label_dropout: share of the samples trained without their label (Ho and Salimans 2022,
            algorithm 1).
        melody_dropout: share of the samples trained without their melody; only a network with a
            melody input uses it.
        keyed_by: "sample": the random numbers of a sample do not depend on the batch size;
            "batch": one generator for each batch, which is faster on a GPU.
        seed: keys noise and sigma, together with the step and the sample's index.
        compile: compile the network with torch.compile; the first step then takes minutes.
        checkpoint_activations: recompute activations in the backward pass to save memory.

    Attributes:
        steps_before: steps of the model that this run starts from; None: unknown.

    Raises:
        InputError: the network's channels or labels do not match the codec or `labels`, or a
            setting is wrong.
    """

    warmup = 0.1
    ema: EMA[Denoiser]
    mean: Tensor
    std: Tensor
    level: Tensor

    def __init__(
        self,
        model: UNet1d,
        codec: Codec,
        sigma_distribution: SigmaDistribution,
        sigma_data: float = 1.0,
        lr: float = 1e-4,
        lr_beta1: float = 0.95,
        lr_beta2: float = 0.999,
        lr_eps: float = 1e-6,
        lr_weight_decay: float = 1e-3,
        ema_beta: float = 0.995,
        ema_power: float = 0.7,
        total_steps: int | None = None,
        mean_path: str | None = None,
        std_path: str | None = None,
        name: str = "instrument",
        length: int = 409600,
        coupling: ChunkCoupling | None = None,
        labels: Sequence[str] | None = None,
        label_dropout: float = 0.1,
        melody_dropout: float = 0.15,
        keyed_by: str = "sample",
        seed: int = 0,
        compile: bool = False,
        checkpoint_activations: bool = False,
    ):
        super().__init__(codec)
        check_number("model.melody_dropout", melody_dropout, least=0, most=1)
        check_choice("model.keyed_by", keyed_by, DRAWS)
        self.save_hyperparameters(
            ignore=["model", "codec", "sigma_distribution", "coupling", "labels"]
        )
        self.labels = tuple(labels or ())
        self.label_map = Labels(self.labels)
        self._check_network(model)
        # A network of the user may lack the attribute.
        self.melody_channels: int = getattr(model, "melody_channels", 0)
        self._features: list[Codec] = [MelodyFeatures(codec) if self.melody_channels else codec]
        self.denoiser = Denoiser(model, sigma_data)
        self.ema = EMA(self.denoiser, ema_beta, ema_power)
        if checkpoint_activations:
            checkpoint_blocks(self.denoiser.net)
        if compile:
            self.denoiser.net.compile()  # in place: the keys of checkpoints stay
        self.sigma_distribution = sigma_distribution
        self.coupling = coupling
        self.validation = ValidationLoss(sigma_distribution, self.melody_channels > 0)
        shape = self.label_map.statistics_shape(codec.latent_channels)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))
        # RMS of the active parts of the recordings; nan: unknown.
        self.register_buffer("level", torch.tensor(float("nan")))
        self.steps_before: int | None = 0
        self._run_dir: Path | None = None

    def _check_network(self, model: UNet1d) -> None:
        if model.in_channels != self.codec.latent_channels:
            raise InputError(
                f"model.model.in_channels={model.in_channels}, but the codec {self.codec.name} has "
                f"{self.codec.latent_channels} channels: set them equal"
            )
        if self.label_map.count != model.num_labels:
            raise InputError(
                f"labels={list(self.labels)} make {self.label_map.count} labels, and "
                f"model.model.num_labels is {model.num_labels}: set them equal"
            )

    @property
    def features(self) -> Codec:
        """The codec; with a melody input, a `MelodyFeatures` of the codec."""
        return self._features[0]

    @property
    def trained(self) -> Denoiser:
        """The denoiser in training."""
        return self.denoiser

    def wants_cache(self, datamodule: pl.LightningDataModule) -> bool:
        """Return whether training would read latents from the datamodule's cache."""
        return isinstance(datamodule, Datamodule) and datamodule.wants_cache(self.features)

    def use_cache(self, datamodule: pl.LightningDataModule, device: torch.device) -> None:
        """Read latents from the datamodule's cache if configured; encode missing ones."""
        if isinstance(datamodule, Datamodule):
            self.takes_latents = datamodule.use_cache(self.features, device)
        elif isinstance(datamodule, PackedDatamodule):
            datamodule.use_device(device)
            self.takes_latents = True

    def prepare(self, datamodule: pl.LightningDataModule, run_dir: Path, ckpt: str | None) -> None:
        """Set the latent statistics, from the given files or from the training files.

        Args:
            datamodule: data of the run.
            run_dir: folder for `mean.pt`, `std.pt` and `level.pt`.
            ckpt: checkpoint that the run resumes from; its buffers hold the statistics.

        Raises:
            InputError: only one of the two files is given, or a file is unreadable.
        """
        self._run_dir = run_dir
        if ckpt is not None:
            return
        h = self.hparams
        if (h.mean_path is None) != (h.std_path is None):
            raise InputError("set both mean_path and std_path, or neither to compute both")
        if h.mean_path is not None:
            mean = load_tensor(h.mean_path)
            std = load_tensor(h.std_path)
            level = self.level
        else:
            if isinstance(datamodule, PackedDatamodule):
                found = datamodule.statistics(self.label_map)
            else:
                found = latent_statistics(self.features, datamodule, self.label_map)
            mean, std, level = found
            channels = self.codec.latent_channels  # the melody, which follows, is not normalised
            mean, std = mean[..., :channels], std[..., :channels]
        self.mean.copy_(statistics_of(mean, self.mean.shape))
        self.std.copy_(statistics_of(std, self.std.shape))
        self.level.copy_(level.reshape(()))

    def normalised_latents(self, batch: Tensor, label: Tensor | None = None) -> Tensor:
        """Encode and normalise a batch, see `network_inputs`.

        Returns:
            Latents [B, D, L].
        """
        return self.network_inputs(batch, label)[0]

    def network_inputs(
        self, batch: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Encode and normalise a batch; zero-pad it to a multiple of the downsampling factor.

        Args:
            batch: wav [B, 1, T], or latents [B, D, L] or features [B, D + M, L] of a cache or, in
                uint8, of a pack.
            label: labels [B]; None for a model without labels.

        Returns:
            Latents [B, D, L]; melody [B, M, L], or None for a network without a melody input.
        """
        mean, std = self.mean, self.std
        if mean.ndim > 1:
            assert label is not None  # the statistics are those of several instruments
            instrument = self.label_map.instrument(label)
            mean, std = mean[instrument], std[instrument]
        # Outside of mixed precision: rounding must not change the data.
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            z, melody = self._encode(batch)
            z = (z - mean[..., None]) / std[..., None]
        padding = (0, -z.shape[-1] % self.denoiser.net.downsample_factor)
        return F.pad(z, padding), None if melody is None else F.pad(melody, padding)

    def _encode(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the latents of a batch, and its melody for a network with this input."""
        packed = batch.dtype == torch.uint8
        features = batch if packed or self.takes_latents else self.features.encode(batch)
        latents = features[:, : self.codec.latent_channels]
        latents = dequantise(latents) if packed else latents
        if not self.melody_channels:
            return latents, None
        melody = features[:, self.codec.latent_channels :]
        return latents, dequantise_melody(melody) if packed else melody

    def draw(
        self, z: Tensor, step: int, first: int = 0, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draw noise, noise level and label dropout, see `draw_with_melody`."""
        return self.draw_with_melody(z, step, first, label)[:3]

    def draw_with_melody(
        self,
        z: Tensor,
        step: int,
        first: int = 0,
        label: Tensor | None = None,
        melody: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Draw noise, noise level and dropout, keyed by (seed, step, index of the sample).

        Args:
            z: normalised latents [B, D, L].
            step: optimiser step.
            first: index of the first sample in the global batch.
            label: labels [B]; None for a model without labels.
            melody: melody [B, M, L]; None for a model without a melody input.

        Returns:
            Noise [B, D, L]; sigma [B]; the labels [B] after dropout, `num_labels` standing for a
            dropped label; the melody [B, M + 1, L] after dropout, see `drop_melody`.
        """
        h = self.hparams
        drawn = DRAWS[h.keyed_by](
            z, h.seed, step, first, self.coupling, label is not None, melody is not None
        )
        if label is not None:
            label = torch.where(drawn.label < h.label_dropout, self.label_map.count, label)
        if melody is not None:
            melody = drop_melody(melody, drawn.melody < h.melody_dropout)
        return drawn.noise, self.sigma_distribution.icdf(drawn.sigma), label, melody

    def _split(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Split a batch into sound and labels; None for a model without labels."""
        wav, label = batch if self.labels else (batch, None)
        return cast(Tensor, wav), label

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the loss [], and each sample's loss [B] and noise level [B]."""
        wav, label = self._split(batch)
        z, melody = self.network_inputs(wav, label)
        # Earlier batches of the same optimiser step.
        accumulated = batch_idx % self.trainer.accumulate_grad_batches
        first = (accumulated * self.trainer.world_size + self.global_rank) * len(z)
        noise, sigma, label, melody = self.draw_with_melody(
            z, self.trainer.global_step, first, label, melody
        )
        losses = self.denoiser.loss(z, noise, sigma, label=label, melody=melody)
        # Lightning would read a figure of the progress bar from the device at every step:
        # `ProgressBar` reads this one when it refreshes.
        self.log("train_loss", losses.mean(), sync_dist=True)
        return {"loss": losses.mean(), "losses": losses.detach(), "sigma": sigma}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the validation losses of a batch, with the averaged weights."""
        wav, label = self._split(batch)
        z, melody = self.network_inputs(wav, label)
        before = batch_idx * self.trainer.val_dataloaders.batch_size
        world = self.trainer.world_size
        items = [(before + index) * world + self.global_rank for index in range(len(z))]
        for name, value in self.validation(self.ema.model, z, items, label, melody).items():
            self.log(name, value, prog_bar=name == "valid_loss", on_step=False, on_epoch=True)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Restore the number of steps before this run."""
        super().on_load_checkpoint(checkpoint)
        steps = checkpoint.get("instrument", {}).get("steps")
        self.steps_before = None if steps is None else steps - checkpoint["global_step"]

    def on_fit_start(self) -> None:
        """Move the codec to the device; broadcast the statistics, which one process computes."""
        super().on_fit_start()
        for value in (self.mean, self.std, self.level):
            value.copy_(self.trainer.strategy.broadcast(value.cpu()))

    def on_train_start(self) -> None:
        """Write the statistics into the run folder."""
        if self._run_dir is None or not self.trainer.is_global_zero:
            return
        for name in ("mean", "std", "level"):
            with atomic_write(self._run_dir / f"{name}.pt") as temporary:
                torch.save(getattr(self, name).detach().cpu().clone(), temporary)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the description of the model."""
        checkpoint["instrument"] = self.describe()

    def describe(self) -> dict[str, Any]:
        """Return the fields of `spec`."""
        return asdict(self.spec)

    @property
    def spec(self) -> InstrumentSpec:
        """Description of the exported model."""
        distribution = self.sigma_distribution
        level = float(self.level)
        ranges = {
            key: getattr(distribution, key)
            for key in ("sigma_min", "sigma_max", "rho")
            if hasattr(distribution, key)
        }
        return InstrumentSpec(
            name=self.hparams.name,
            unet=self.denoiser.net.config,
            network=network_name(self.denoiser.net),
            codec=self.codec.name,
            sigma_data=self.denoiser.sigma_data,
            frames=self.codec.num_frames(self.hparams.length),
            labels=self.labels,
            level_db=None if level != level else to_db(level),
            steps=None if self.steps_before is None else self.steps_before + self.global_step,
            **ranges,
        )

    def instrument(self) -> InstrumentModel:
        """Return the model of a bridge; it shares the averaged weights with this module."""
        return InstrumentModel(self.spec, self.mean, self.std, self.ema.model)

    def export(self, path: Path) -> None:
        """Write the averaged weights in half precision, with all that a bridge needs, to `path`."""
        model = self.instrument()
        trainer = attached_trainer(self)
        has_data = trainer is not None and isinstance(trainer.datamodule, Datamodule)
        if has_data and self.codec.has_frequency_bands and not self.takes_latents:
            model.spec = replace(model.spec, noise=self._noise_statistics(model.eval()))
        with tqdm(total=1, desc="writing the model", unit="file", delay=1) as bar:
            model.save(path, {"step": str(self.global_step)})
            bar.update()

    def _noise_statistics(self, model: InstrumentModel) -> dict:
        """Measure the noise statistics of each instrument on its validation recordings."""
        valid = self.trainer.datamodule.valid_set
        wavs = validation_recordings(valid, self.label_map, model.spec.name, bool(self.labels))
        return noise_of_instruments(model, wavs, self.codec.sample_rate, self.codec)
