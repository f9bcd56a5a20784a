"""The names that scripts and notebooks of the original system import, as thin adapters over this package.

Arguments, shapes and results are the original's (Mancusi et al. 2025, arXiv 2409.06096).
"""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from audio_diffusion_pytorch.codecs.encodec import EncodecCodec
from audio_diffusion_pytorch.diffusion.denoiser import (
    Denoiser,
    KDistribution,
    LogNormalDistribution,
    SigmaDistribution,
    UniformDistribution,
)
from audio_diffusion_pytorch.diffusion.sampling import (
    ancestral_euler,
    ancestral_midpoint,
    append_zero,
    heun,
    karras_schedule,
    linear_schedule,
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

# Arguments of the original that this package knows with one value only: the one of the published models.
_ONE_VALUE = {
    "diffusion_type": "k",
    "diffusion_dynamic_threshold": 0.0,
    "patch_blocks": 1,
    "use_context_time": True,
}


class AudioDiffusionModel(nn.Module):
    """A UNet and its diffusion; its parameters go by unet.*, diffusion.net.* and diffusion.diffusion.net.* alike.

    Args:
        diffusion_sigma_distribution: noise levels of training; None: `KDistribution(0.001, 100, 9)`.
        diffusion_sigma_data: standard deviation of the clean latents.
        unet: arguments of `UNet1d`; the defaults are the published size.

    Raises:
        InputError: an argument that only had another value in the original.
        TypeError, ValueError: arguments that `UNet1d` does not take.
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
                raise InputError(f"{name} can only be {value!r} here")
        for name in unet.keys() - UNet1d.__init__.__annotations__.keys():
            if unet.pop(name):  # such as context_channels=None, use_context_features=False
                raise InputError(f"{name} has no counterpart here: leave it out")
        self.sigma_distribution = diffusion_sigma_distribution or KDistribution(0.001, 100.0, 9.0)
        self.unet = UNet1d(**unet)
        self.diffusion = nn.Module()
        self.diffusion.net = self.unet
        self.diffusion.diffusion = Denoiser(self.unet, diffusion_sigma_data)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """The training loss of latents x [B, C, T], a mean over the batch."""
        sigmas = self.sigma_distribution(x.shape[0], device=x.device)
        return self.diffusion.diffusion.loss(
            x, torch.randn_like(x) if noise is None else noise, sigmas
        ).mean()

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        num_steps: int,
        sigma_schedule: Callable[[int, Any], Tensor],
        sampler: Callable[..., Tensor],
        clamp: bool = False,
    ) -> Tensor:
        """Run a sampler over a schedule of `num_steps` points from x [B, C, T]; `clamp` cuts the result to [-1, 1]."""
        sigmas = sigma_schedule(num_steps, noise.device)
        x = sampler(noise, fn=self.diffusion.diffusion, sigmas=sigmas, num_steps=num_steps)
        return x.clamp(-1.0, 1.0) if clamp else x


class KarrasSchedule:
    """Karras et al. 2022, eq. 5: schedule(num_steps, device) -> [num_steps + 1] float32, the last one 0."""

    def __init__(self, sigma_min: float = 0.1, sigma_max: float = 100.0, rho: float = 7.0):
        self.sigma_min, self.sigma_max, self.rho = sigma_min, sigma_max, rho

    def __call__(self, num_steps: int, device: torch.device | str | None = None) -> Tensor:
        return (
            append_zero(karras_schedule(self.sigma_min, self.sigma_max, self.rho, num_steps))
            .float()
            .to(device)
        )


class LinearSchedule:
    """From `start` evenly towards 0, which is left out: schedule(num_steps, device) -> [num_steps] float32."""

    def __init__(self, start: float = 1.0):
        self.start = start

    def __call__(self, num_steps: int, device: torch.device | str | None = None) -> Tensor:
        return linear_schedule(self.start, num_steps).float().to(device)


class KarrasSampler:
    """Heun steps over the first `num_steps` sigmas, num_steps - 1 of them: the last sigma, 0, is not reached.

    Args:
        bridge: take the input as it is; False: multiply it by the first sigma.
        s_tmin, s_tmax, s_churn, s_noise: without effect, as in the original, which sets the churn to 0.
    """

    def __init__(
        self,
        s_tmin: float = 0,
        s_tmax: float = float("inf"),
        s_churn: float = 0.0,
        s_noise: float = 1.0,
        bridge: bool = True,
    ):
        self.bridge = bridge

    def __call__(self, noise: Tensor, fn: Callable, sigmas: Tensor, num_steps: int) -> Tensor:
        return heun(_by_name(fn), noise if self.bridge else sigmas[0] * noise, sigmas[:num_steps])


class KarrasSamplerReverse(KarrasSampler):
    """`KarrasSampler` from the last of the `num_steps` sigmas to the first: data to noise."""

    def __init__(
        self,
        s_tmin: float = 0,
        s_tmax: float = float("inf"),
        s_churn: float = 0.0,
        s_noise: float = 1.0,
    ):
        super().__init__(s_tmin, s_tmax, s_churn, s_noise)

    def __call__(self, x: Tensor, fn: Callable, sigmas: Tensor, num_steps: int) -> Tensor:
        return heun(_by_name(fn), x, sigmas[:num_steps].flip(0))


class ADPM2Sampler:
    """`sampling.ancestral_midpoint` without its noise term; `bridge` as in `KarrasSampler`, here False by default."""

    def __init__(self, bridge: bool = False, rho: float = 1.0):
        self.bridge, self.rho = bridge, rho

    def __call__(self, noise: Tensor, fn: Callable, sigmas: Tensor, num_steps: int) -> Tensor:
        x = noise if self.bridge else sigmas[0] * noise
        return ancestral_midpoint(_by_name(fn), x, sigmas[:num_steps], noise=None, rho=self.rho)


class AEulerSampler:
    """`sampling.ancestral_euler`; multiplies its input by the first sigma."""

    def __call__(self, noise: Tensor, fn: Callable, sigmas: Tensor, num_steps: int) -> Tensor:
        return ancestral_euler(_by_name(fn), sigmas[0] * noise, sigmas[:num_steps])


class NormalizedEncodec:
    """EnCodec 24 kHz with latents normalised per channel.

    Args:
        model_name: "facebook/encodec_24khz" for the pretrained weights (the `encodec` package's download); or what
            `EncodecCodec` takes as weights: a folder from the hub, a checkpoint of the original.
        device: None: the GPU where there is one.
    """

    def __init__(
        self,
        model_name: str | Path = "facebook/encodec_24khz",
        device: str | torch.device | None = None,
    ):
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        pretrained = str(model_name) == "facebook/encodec_24khz" and not Path(model_name).exists()
        self.encodec_model = (
            EncodecCodec(None if pretrained else model_name).freeze().to(self.device)
        )

    @torch.no_grad()
    def encode_latent(
        self, x: Tensor, mean: Tensor | None = None, std: Tensor | None = None
    ) -> Tensor:
        """wav [B, 1, T] -> latents [B, D, ceil(T / 320)], normalised where mean and std [D, 1] are given."""
        z = self.encodec_model.encoder(x.to(self.device))
        return z if mean is None or std is None else z_norm(z, mean, std)

    @torch.no_grad()
    def decode_latent(
        self, z: Tensor, mean: Tensor | None = None, std: Tensor | None = None
    ) -> Tensor:
        """Latents [B, D, L], normalised where mean and std are given -> wav [B, 1, 320 L]."""
        z = z.to(self.device)
        return self.encodec_model.decode(
            z if mean is None or std is None else z_denorm(z, mean, std)
        )


def z_norm(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Latents [B, D, L] -> (x - mean) / std; mean and std [D, 1] or [D]."""
    return (x - mean.to(x.device).reshape(-1, 1)) / std.to(x.device).reshape(-1, 1)


def z_denorm(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The inverse of `z_norm`."""
    return x * std.to(x.device).reshape(-1, 1) + mean.to(x.device).reshape(-1, 1)


class PitchTracker:
    """Melody distances as the authors compute them: 24 kHz audio, read as 22.05 kHz in one piece."""

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
        """Compare clips y1 and y2, [B, samples] or [B, 1, samples] at 24 kHz, pair by pair.

        Args:
            window_size: odd length of a median filter over the melodies' frames; 0: none. (The original's also ran
                over the batch, which set a single clip's melody to zero.)
            plot: draw the first pair; `pair` has the pictures' titles.

        Returns:
            For every pair a float, or with "both" a tuple (DPD, JD). With `specs_back` a tuple: that list, and the
            chroma of y1 and of y2 as arrays [B, frames, 12]; else with `plot` a tuple: that list, and two <img> tags.

        Raises:
            InputError: clips that cannot be compared, or an unknown metric.
        """
        if metric not in ("dtw", "jaccard", "both"):
            raise InputError(f'metric={metric!r}: choose "dtw", "jaccard" or "both"')
        y1, y2 = torch.as_tensor(y1), torch.as_tensor(y2)
        clips = [y.squeeze(1).detach().cpu() if y.ndim == 3 else y.detach().cpu() for y in (y1, y2)]
        found = pitch_metrics(*clips, PAPER_RATE, mode="paper", median_frames=window_size)
        dpd, jaccard = found.dpd.tolist(), found.jaccard.tolist()
        distances = {"dtw": dpd, "jaccard": jaccard, "both": list(zip(dpd, jaccard, strict=True))}[
            metric
        ]
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
    """Show a mel spectrogram of a clip [T], [C, T] or [1, C, T] (the channels' average)."""
    import matplotlib.pyplot as plt

    from audio_diffusion_pytorch.plots import mel_spectrogram_db

    figure, axis = plt.subplots(figsize=(10, 4))
    mel = mel_spectrogram_db(_mono(waveform), sample_rate)
    image = axis.imshow(mel, origin="lower", aspect="auto", vmin=-90, vmax=-10, cmap="magma")
    axis.set(title=title, xlabel="frame", ylabel="mel band")
    figure.colorbar(image, ax=axis, label="dB")
    plt.show()


def play_audio(waveform: Tensor | np.ndarray, sample_rate: int = PAPER_RATE) -> Any:
    """A player for a clip [T], [C, T] or [1, C, T] (the channels' average), to be shown by a notebook.

    Raises:
        InputError: IPython is not installed.
    """
    try:
        from IPython.display import Audio
    except ImportError as error:
        raise InputError("play_audio needs a notebook: pip install ipython") from error
    return Audio(_mono(waveform).numpy(), rate=sample_rate)


def _by_name(fn: Callable) -> Callable:
    return lambda x, sigma: fn(x, sigma=sigma)


def _mono(waveform: Tensor | np.ndarray) -> Tensor:
    wav = torch.as_tensor(waveform).detach().float().cpu()
    return wav.reshape(-1, wav.shape[-1]).mean(dim=0)


def _melody_tag(chroma: np.ndarray, classes: np.ndarray, title: str) -> str:
    """Chroma [frames, 12] with the melody [frames] over it, as an <img> tag."""
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
