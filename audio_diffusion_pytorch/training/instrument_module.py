"""Training of an instrument's model: steps, EMA, optimiser.

wav -> codec.encode -> normalise -> denoiser.loss(z, noise, sigma) -> AdamW -> EMA
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor
from tqdm import tqdm

from audio_diffusion_pytorch.audio import to_db
from audio_diffusion_pytorch.bridge.noise_statistics import noise_of_instruments
from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.data.datamodule import Datamodule
from audio_diffusion_pytorch.data.latent_statistics import latent_statistics
from audio_diffusion_pytorch.diffusion.coupling import ChunkCoupling
from audio_diffusion_pytorch.diffusion.denoiser import Denoiser, SigmaDistribution
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.activation_checkpointing import checkpoint_blocks
from audio_diffusion_pytorch.models.instrument import InstrumentModel, InstrumentSpec
from audio_diffusion_pytorch.models.labels import Labels, statistics_of
from audio_diffusion_pytorch.models.networks import network_name
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.training.ema import EMA
from audio_diffusion_pytorch.training.optim import adamw, follow_configured_length
from audio_diffusion_pytorch.training.randomness import generator_for
from audio_diffusion_pytorch.training.validation_loss import ValidationLoss
from audio_diffusion_pytorch.utils.checkpoint_io import load_tensor
from audio_diffusion_pytorch.utils.files import atomic_write

_HEARD = 32  # recordings, at most, from which it is measured what an instrument is like as noise
Batch = Tensor | tuple[Tensor, Tensor]  # wav [B, 1, T] or latents [B, D, L], or with labels [B]


class InstrumentModule(pl.LightningModule):
    """An instrument's denoiser in training.

    Args:
        model: the network F.
        codec: wav <-> latents; frozen, and no part of the checkpoints.
        sigma_distribution: noise levels of training.
        sigma_data: standard deviation of the normalised latents.
        mean_path, std_path: files of a 1-D tensor [D]; None: computed from the training files.
        total_steps: steps of a one-cycle learning rate; None: constant.
        name: the instrument, kept in exported models.
        length: samples of a training crop, kept in exported models as the bridge's window.
        coupling: see `ChunkCoupling`; None: noise independent of the latents.
        labels: what the network tells apart, see `Labels`; the data set then gives (wav, label). Each instrument's
            latents are normalised by its own statistics: its average spectrum does not tell it, its label does.
        label_dropout: share of the samples trained without their label (Ho and Salimans 2022, algorithm 1).
        seed: keys noise and sigma, with the step and the sample's index.
        compile: let torch.compile make the network faster; the first step then takes minutes.
        checkpoint_activations: compute again in the backward pass what would fill the memory; see `checkpoint_blocks`.
    """

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
        seed: int = 0,
        compile: bool = False,
        checkpoint_activations: bool = False,
    ):
        super().__init__()
        self.save_hyperparameters(
            ignore=["model", "codec", "sigma_distribution", "coupling", "labels"]
        )
        if model.in_channels != codec.latent_channels:
            raise InputError(
                f"model.model.in_channels={model.in_channels}, but the codec {codec.name} has {codec.latent_channels} "
                "channels: set them equal"
            )
        self.labels = tuple(labels or ())
        self.label_map = Labels(self.labels)
        if self.label_map.count != model.num_labels:
            raise InputError(
                f"labels={list(self.labels)} make {self.label_map.count} labels, and model.model.num_labels is "
                f"{model.num_labels}: set them equal"
            )
        self.denoiser = Denoiser(model, sigma_data)
        self.ema = EMA(self.denoiser, ema_beta, ema_power)
        if checkpoint_activations:
            checkpoint_blocks(self.denoiser.net)
        if compile:
            self.denoiser.net.compile()  # in place: the checkpoints' keys stay
        self.sigma_distribution, self.coupling = sigma_distribution, coupling
        self.validation = ValidationLoss(sigma_distribution)
        shape = self.label_map.statistics_shape(codec.latent_channels)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))
        self.register_buffer(
            "level", torch.tensor(float("nan"))
        )  # RMS of the sounding parts; nan: unknown
        self.takes_latents = False  # batches are latents [B, D, L] of a cache
        self.steps_before: int | None = 0  # of the model that this one starts from; None: unknown
        self._run_dir: Path | None = None
        self._codec = [
            codec.freeze()
        ]  # in a list, so that it is no submodule and stays out of the checkpoints

    @property
    def codec(self) -> Codec:
        return self._codec[0]

    def use_cache(self, datamodule: pl.LightningDataModule, device: torch.device) -> None:
        """Take latents from the datamodule, where it has a cache of them and its settings say so."""
        self.takes_latents = isinstance(datamodule, Datamodule) and datamodule.use_cache(
            self.codec, device
        )

    def prepare(self, datamodule: pl.LightningDataModule, run_dir: Path, ckpt: str | None) -> None:
        """Find the latent statistics: in the checkpoint, in the given files, or from the training files."""
        self._run_dir = run_dir
        if ckpt is not None:
            return  # the checkpoint's buffers hold them
        h = self.hparams
        if (h.mean_path is None) != (h.std_path is None):
            raise InputError(
                "give both mean_path and std_path, or neither (they are then computed)"
            )
        if h.mean_path is not None:
            found = load_tensor(h.mean_path), load_tensor(h.std_path), self.level
        else:
            found = latent_statistics(self.codec, datamodule, self.label_map)
        self.mean.copy_(statistics_of(found[0], self.mean.shape))
        self.std.copy_(statistics_of(found[1], self.std.shape))
        self.level.copy_(found[2].reshape(()))

    def normalised_latents(self, batch: Tensor, label: Tensor | None = None) -> Tensor:
        """wav [B, 1, T], or latents -> [B, D, L], normalised and zero-padded to a length that the network takes."""
        mean, std = self.mean, self.std
        if mean.ndim > 1:
            instrument = self.label_map.instrument(label)
            mean, std = mean[instrument], std[instrument]
        with (
            torch.no_grad(),
            torch.autocast(self.device.type, enabled=False),
        ):  # the data stay exact
            z = batch if self.takes_latents else self.codec.encode(batch)
            z = (z - mean[..., None]) / std[..., None]
        return torch.nn.functional.pad(z, (0, -z.shape[-1] % self.denoiser.net.downsample_factor))

    def draw(
        self, z: Tensor, step: int, first: int = 0, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Noise [B, D, L] and sigma [B], keyed by (seed, optimiser step, the sample's index in the global batch).

        The samples' indices count from `first`. Some of the labels [B] in `label`, where there are any, are
        overwritten by "no label".
        """
        u, noise = [], []
        for index, latents in enumerate(z):
            generator = generator_for(self.hparams.seed, step, first + index, z.device)
            u.append(torch.rand((), generator=generator, device=z.device))
            noise.append(torch.randn(z.shape[1:], generator=generator, device=z.device))
            if self.coupling is not None:
                noise[-1] = self.coupling(latents, noise[-1], generator)
            if (
                label is not None
                and torch.rand((), generator=generator, device=z.device)
                < self.hparams.label_dropout
            ):
                label[index] = self.label_map.count
        return torch.stack(noise), self.sigma_distribution.icdf(torch.stack(u))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        wav, label = batch if self.labels else (batch, None)
        z = self.normalised_latents(wav, label)
        accumulated = (
            batch_idx % self.trainer.accumulate_grad_batches
        )  # batches of this optimiser step before this
        first = (accumulated * self.trainer.world_size + self.global_rank) * len(z)
        noise, sigma = self.draw(z, self.trainer.global_step, first, label)
        losses = self.denoiser.loss(z, noise, sigma, label=label)
        self.log("train_loss", losses.mean(), prog_bar=True, sync_dist=True)
        return {"loss": losses.mean(), "losses": losses.detach(), "sigma": sigma}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        wav, label = batch if self.labels else (batch, None)
        z = self.normalised_latents(wav, label)
        before, world = batch_idx * self.trainer.val_dataloaders.batch_size, self.trainer.world_size
        items = [(before + index) * world + self.global_rank for index in range(len(z))]
        for name, value in self.validation(self.ema.model, z, items, label).items():
            self.log(name, value, prog_bar=name == "valid_loss", on_step=False, on_epoch=True)

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.denoiser)

    def configure_optimizers(self) -> dict:
        h = self.hparams
        betas = h.lr_beta1, h.lr_beta2
        return adamw(
            self.denoiser.parameters(), h.lr, betas, h.lr_eps, h.lr_weight_decay, h.total_steps
        )

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        follow_configured_length(checkpoint)
        steps = checkpoint.get("instrument", {}).get("steps")
        self.steps_before = None if steps is None else steps - checkpoint["global_step"]

    def on_fit_start(self) -> None:
        self.codec.to(self.device)
        for value in (self.mean, self.std, self.level):  # the first of several processes found them
            value.copy_(self.trainer.strategy.broadcast(value.cpu()))

    def on_train_start(self) -> None:
        if self._run_dir is not None and self.trainer.is_global_zero:
            for name in ("mean", "std", "level"):
                with atomic_write(self._run_dir / f"{name}.pt") as temporary:
                    torch.save(getattr(self, name).detach().cpu().clone(), temporary)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["instrument"] = asdict(self.spec)

    @property
    def spec(self) -> InstrumentSpec:
        """What an exported model is described by."""
        distribution, level = self.sigma_distribution, float(self.level)
        ranges = {
            k: getattr(distribution, k)
            for k in ("sigma_min", "sigma_max", "rho")
            if hasattr(distribution, k)
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
        """The averaged weights, as a bridge takes them; shares its tensors with this module."""
        return InstrumentModel(self.spec, self.mean, self.std, self.ema.model)

    def export(self, path: Path) -> None:
        """Write the averaged weights in half precision, with everything else a bridge needs."""
        model = self.instrument()
        attached = self._trainer is not None and isinstance(self._trainer.datamodule, Datamodule)
        if attached and self.codec.has_frequency_bands and not self.takes_latents:
            model.spec = replace(model.spec, noise=self._noise_statistics(model.eval()))
        with tqdm(total=1, desc="writing the model", unit="file", delay=1) as bar:
            model.save(path, {"step": str(self.global_step)})
            bar.update()

    def _noise_statistics(self, model: InstrumentModel) -> dict:
        """What the validation recordings of each instrument are like as noise."""
        valid, names = (
            self.trainer.datamodule.valid_set,
            self.label_map.instruments or (model.spec.name,),
        )
        stride = -(-len(valid) // _HEARD)  # spread over the recordings
        wavs: dict[str, list[Tensor]] = {name: [] for name in names}
        order = sorted(range(len(valid)), key=lambda index: index % stride)
        for index in tqdm(order, desc="reading the validation recordings", unit="clip", delay=1):
            wav, label = valid[index] if self.labels else (valid[index], torch.tensor(0))
            found = wavs[names[int(self.label_map.instrument(torch.as_tensor(label)))]]
            if len(found) < _HEARD:
                found.append(wav)
            if all(len(found) == _HEARD for found in wavs.values()):
                break
        return noise_of_instruments(model, wavs, self.codec.sample_rate, self.codec)
