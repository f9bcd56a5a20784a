"""Provide the names that scripts of the original system import, as adapters over this package.

Arguments, shapes and results are those of the original (Mancusi et al. 2025, arXiv 2409.06096).
`samplers` holds the schedules and samplers.
"""

import base64
import inspect
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from audio_diffusion_pytorch.codecs.encodec import EncodecCodec
from audio_diffusion_pytorch.compat.samplers import (
    ADPM2Sampler,
    AEulerSampler,
    KarrasSampler,
    KarrasSamplerReverse,
    KarrasSchedule,
    LinearSchedule,
)
from audio_diffusion_pytorch.diffusion.denoiser import (
    Denoiser,
    KDistribution,
    LogNormalDistribution,
    SigmaDistribution,
    UniformDistribution,
)
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.metrics.melody import pitch_metrics
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.pitch.tracker import PAPER_RATE, PITCH_CLASSES, track_melody

__all__ = [
    "ADPM2Sampler",
    "AEulerSampler",
    "AudioDiffusionModel",
    "KDistribution",
    "KarrasSampler",
    "KarrasSamplerReverse",
    "KarrasSchedule",
    "LinearSchedule",
    "LogNormalDistribution",
    "NormalizedEncodec",
    "PitchTracker",
    "UniformDistribution",
    "play_audio",
    "plot_spec",
    "z_denorm",
    "z_norm",
]

# Arguments of the original that support one value only: the value of the published models.
_ONE_VALUE = {
    "diffusion_type": "k",
    "diffusion_dynamic_threshold": 0.0,
    "patch_blocks": 1,
    "use_context_time": True,
}


class AudioDiffusionModel(nn.Module):
    """UNet and its diffusion.

    Parameters have the names unet.*, diffusion.net.* and diffusion.diffusion.net.*.

    Args:
        diffusion_sigma_distribution: noise levels of training; None:
            `KDistribution(0.001, 100, 9)`.
        diffusion_sigma_data: standard deviation of the clean latents.
        unet: arguments of `UNet1d`; the defaults are the published size.

    Raises:
        InputError: an argument of the original, or its value, is not supported.
        TypeError: an argument has the wrong type.
        ValueError: the arguments of `UNet1d` are inconsistent.
    """

    def __init__(
        self,
        diffusion_sigma_distribution: SigmaDistribution | None = None,
        diffusion_sigma_data: float = 1.0,
        **unet: Any,
    ):
        super().__init__()
        for name, value in _ONE_VALUE.items():
            if unet.pop(name, value) != value:
                raise InputError(f"{name} must be {value!r}: this package supports no other value")
        for name in unet.keys() - inspect.signature(UNet1d).parameters.keys():
            if unet.pop(name):  # ignore context_channels=None, use_context_features=False
                raise InputError(f"{name} is not supported: remove it")
        self.sigma_distribution = diffusion_sigma_distribution or KDistribution(0.001, 100.0, 9.0)
        self.unet = UNet1d(**unet)
        self.diffusion = nn.Module()
        self.diffusion.net = self.unet
        self.diffusion.diffusion = Denoiser(self.unet, diffusion_sigma_data)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Compute the training loss of latents x [B, C, T], a mean over the batch."""
        sigmas = self.sigma_distribution(x.shape[0], device=x.device)
        noise = torch.randn_like(x) if noise is None else noise
        return cast(Denoiser, self.diffusion.diffusion).loss(x, noise, sigmas).mean()

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        num_steps: int,
        sigma_schedule: Callable[[int, Any], Tensor],
        sampler: Callable[..., Tensor],
        clamp: bool = False,
    ) -> Tensor:
        """Sample latents.

        Args:
            noise: initial noise [B, C, T].
            num_steps: points of the schedule.
            sigma_schedule: schedule(num_steps, device) -> sigmas.
            sampler: a sampler such as `KarrasSampler`.
            clamp: clamp the result to [-1, 1].

        Returns:
            Latents [B, C, T].
        """
        sigmas = sigma_schedule(num_steps, noise.device)
        x = sampler(noise, fn=self.diffusion.diffusion, sigmas=sigmas, num_steps=num_steps)
        return x.clamp(-1.0, 1.0) if clamp else x


class NormalizedEncodec:
    """EnCodec 24 kHz with latents normalised per channel.

    Args:
        model_name: "facebook/encodec_24khz" for the pretrained weights (the `encodec` package's
            download), or weights as for `EncodecCodec`: a folder from the hub, a checkpoint of the
            original.
        device: device of the codec; None: the GPU if available.
    """

    def __init__(
        self,
        model_name: str | Path = "facebook/encodec_24khz",
        device: str | torch.device | None = None,
    ):
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        pretrained = str(model_name) == "facebook/encodec_24khz" and not Path(model_name).exists()
        self.encodec_model = EncodecCodec(None if pretrained else model_name)
        self.encodec_model.freeze().to(self.device)

    @torch.no_grad()
    def encode_latent(
        self, x: Tensor, mean: Tensor | None = None, std: Tensor | None = None
    ) -> Tensor:
        """Encode wav [B, 1, T] to latents [B, D, ceil(T / 320)].

        The latents are normalised if mean and std [D, 1] are given.
        """
        z = self.encodec_model.encoder(x.to(self.device))
        return z if mean is None or std is None else z_norm(z, mean, std)

    @torch.no_grad()
    def decode_latent(
        self, z: Tensor, mean: Tensor | None = None, std: Tensor | None = None
    ) -> Tensor:
        """Decode latents [B, D, L], normalised if mean and std are given, to wav [B, 1, 320 L]."""
        z = z.to(self.device)
        if mean is not None and std is not None:
            z = z_denorm(z, mean, std)
        return self.encodec_model.decode(z)


def z_norm(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalise latents x [B, D, L]: (x - mean) / std; mean and std are [D, 1] or [D]."""
    return (x - mean.to(x.device).reshape(-1, 1)) / std.to(x.device).reshape(-1, 1)


def z_denorm(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Invert `z_norm`."""
    return x * std.to(x.device).reshape(-1, 1) + mean.to(x.device).reshape(-1, 1)


class PitchTracker:
    """Melody distances as in the paper: 24 kHz audio is interpreted as 22.05 kHz, in one piece."""

    def cals_pitch_metric(
        self,
        y1: Tensor,
        y2: Tensor,
        metric: Literal["dtw", "jaccard", "both"] = "dtw",
        plot: bool = False,
        window_size: int = 0,
        specs_back: bool = False,
        pair: tuple[str, str] | None = None,
    ) -> list | tuple:
        """Compare clips pair by pair.

        Args:
            y1: clips [B, samples] or [B, 1, samples] at 24 kHz.
            y2: clips of the same shape.
            metric: "dtw" (DPD), "jaccard" (JD) or "both".
            plot: draw the first pair.
            window_size: odd length of a median filter over the frames of the melodies; 0: none.
                (The filter of the original also averages over the batch, which sets the melody of a
                single clip to zero.)
            specs_back: return the chroma, too.
            pair: titles of the pictures.

        Returns:
            List of a float for each pair, or with "both" a tuple (DPD, JD). With `specs_back` a
            tuple: this list, and the chroma of y1 and of y2 as arrays [B, frames, 12]; otherwise
            with `plot` a tuple: this list, and two <img> tags.

        Raises:
            InputError: the clips cannot be compared, or the metric is unknown.
        """
        if metric not in ("dtw", "jaccard", "both"):
            raise InputError(f'metric={metric!r}: choose "dtw", "jaccard" or "both"')
        y1, y2 = torch.as_tensor(y1), torch.as_tensor(y2)
        clips = [y.squeeze(1).detach().cpu() if y.ndim == 3 else y.detach().cpu() for y in (y1, y2)]
        first, second = clips
        found = pitch_metrics(first, second, PAPER_RATE, mode="paper", median_frames=window_size)
        dpd, jaccard = found.dpd.tolist(), found.jaccard.tolist()
        both = list(zip(dpd, jaccard, strict=True))
        distances: list[Any] = {"dtw": dpd, "jaccard": jaccard, "both": both}[metric]
        if not (plot or specs_back):
            return distances
        melodies = [track_melody(clip, PAPER_RATE, "paper", window_size) for clip in clips]
        if specs_back:
            return distances, *(melody.chroma.numpy() for melody in melodies)
        titles = pair or ("", "")
        return distances, tuple(
            _melody_tag(melody.chroma[0].numpy(), melody.classes[0].numpy(), title)
            for melody, title in zip(melodies, titles, strict=True)
        )


def plot_spec(
    waveform: Tensor | np.ndarray, title: str = "", sample_rate: int = PAPER_RATE
) -> None:
    """Show the mel spectrogram of a clip [T], [C, T] or [1, C, T], averaged over the channels."""
    import matplotlib.pyplot as plt

    from audio_diffusion_pytorch.plots import draw_levels, mel_spectrogram_db

    _, axis = plt.subplots(figsize=(10, 4))
    draw_levels(axis, mel_spectrogram_db(_mono(waveform), sample_rate))
    axis.set(title=title, xlabel="frame", ylabel="mel band")
    plt.show()


def play_audio(waveform: Tensor | np.ndarray, sample_rate: int = PAPER_RATE) -> Any:
    """Return a notebook player of a clip [T], [C, T] or [1, C, T], averaged over the channels.

    Raises:
        InputError: IPython is not installed.
    """
    try:
        from IPython.display import Audio
    except ImportError as error:
        raise InputError("play_audio needs a notebook: pip install ipython") from error
    return Audio(_mono(waveform).numpy(), rate=sample_rate)


def _mono(waveform: Tensor | np.ndarray) -> Tensor:
    wav = torch.as_tensor(waveform).detach().float().cpu()
    return wav.reshape(-1, wav.shape[-1]).mean(dim=0)


def _melody_tag(chroma: np.ndarray, classes: np.ndarray, title: str) -> str:
    """Draw a melody [frames] over its chroma [frames, 12], as an <img> tag."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(chroma.T, aspect="auto", origin="lower", vmin=0, vmax=1)
    axis.plot(classes, "r--", label="melody")
    axis.set(
        title=title,
        xlabel="frame",
        ylabel="pitch class",
        yticks=range(12),
        yticklabels=PITCH_CLASSES,
    )
    axis.legend(loc="upper right")
    figure.colorbar(image, ax=axis, label="posterior")
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return f'<img src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}" />'
