"""Pictures of sound."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audio_diffusion_pytorch.codec import LogMel
from audio_diffusion_pytorch.errors import InputError, replacing


def mel_spectrogram_db(wav: Tensor, sample_rate: int, max_frames: int = 4000) -> np.ndarray:
    """wav [T] -> [160 mel bands, frames] in dB of a full-scale sine; long recordings get a longer hop."""
    hop = max(sample_rate // 100, -(-wav.shape[-1] // max_frames))
    n_fft = max(2048, 1 << (hop * 2 - 1).bit_length()) if sample_rate <= 48000 else max(8192, hop * 2)
    n_fft += (n_fft - hop) % 2
    wav = torch.nn.functional.pad(wav, (0, -wav.shape[-1] % hop))
    mel = LogMel(sample_rate, n_fft, hop, 160, 40.0, 1e-5)(wav[None])[0]
    return (mel * (20 / np.log(10))).numpy()


def plot_spectrograms(clips: Mapping[str, tuple[Tensor, int]], path: str | Path) -> None:
    """Draw mel spectrograms under each other into a .png, .pdf or .svg file.

    Args:
        clips: title -> (wav [C, T], sample rate in Hz); the channels' average is drawn.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if Path(path).suffix.lower() not in (".png", ".pdf", ".svg"):
        raise InputError(f"cannot draw into {path}: the picture's name must end in .png, .pdf or .svg")
    figure = Figure(figsize=(10, 3.2 * len(clips)), layout="constrained")
    axes = figure.subplots(len(clips), 1, squeeze=False)[:, 0]
    for axis, (title, (wav, rate)) in zip(axes, clips.items(), strict=True):
        mel = mel_spectrogram_db(wav.mean(0), rate)
        extent = (0, wav.shape[-1] / rate, 0, mel.shape[0])
        image = axis.imshow(mel, origin="lower", aspect="auto", extent=extent, vmin=-90, vmax=-10, cmap="magma")
        _hertz_ticks(axis, rate, mel.shape[0])
        axis.set(title=title, xlabel="seconds", ylabel="Hz")
        figure.colorbar(image, ax=axis, label="dB")
    with replacing(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "0"}):
        figure.savefig(temporary, dpi=110)


def _hertz_ticks(axis, sample_rate: int, bands: int) -> None:
    def mel(hertz: np.ndarray | float) -> np.ndarray | float:
        return 2595 * np.log10(1 + np.asarray(hertz) / 700)

    ticks = np.array([100, 300, 1000, 3000, 10000])
    ticks = ticks[ticks < sample_rate / 2]
    low, high = mel(40.0), mel(sample_rate / 2)
    axis.set_yticks((mel(ticks) - low) / (high - low) * bands, [str(t) for t in ticks])
