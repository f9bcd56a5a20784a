"""Plot spectrograms and pitch tracks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from audio_diffusion_pytorch.audio.mel import LogMel
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write

PICTURES = (".png", ".pdf", ".svg")
Clips = Mapping[str, tuple[Tensor, int]]  # title -> (wav [C, T], sample rate in Hz)


def mel_spectrogram_db(wav: Tensor, sample_rate: int, max_frames: int = 4000) -> np.ndarray:
    """Compute a mel spectrogram for a picture.

    Args:
        wav: sound [T].
        sample_rate: rate of `wav` in Hz.
        max_frames: most frames; long recordings have a longer hop.

    Returns:
        Levels [160, frames] in dB re a full-scale sine.
    """
    hop = max(sample_rate // 100, -(-wav.shape[-1] // max_frames))
    power_of_two = 1 << (hop * 2 - 1).bit_length()
    n_fft = max(2048, power_of_two) if sample_rate <= 48000 else max(8192, hop * 2)
    n_fft += (n_fft - hop) % 2
    wav = torch.nn.functional.pad(wav, (0, -wav.shape[-1] % hop))
    mel = LogMel(sample_rate, n_fft, hop, 160, 40.0, 1e-5)(wav[None])[0]
    return (mel * (20 / np.log(10))).numpy()


def plot_spectrograms(clips: Clips, path: str | Path | None = None) -> Figure:
    """Draw mel spectrograms, one below the other.

    Args:
        clips: title -> (wav [C, T], sample rate in Hz); the mean of the channels is drawn.
        path: .png, .pdf or .svg file to write; None for none.

    Returns:
        The figure.

    Raises:
        InputError: the file has another extension, or cannot be written.
    """
    figure, axes = _rows(len(clips))
    for axis, (title, (wav, rate)) in zip(axes, clips.items(), strict=True):
        mel = mel_spectrogram_db(wav.mean(0), rate)
        extent = (0, wav.shape[-1] / rate, 0, mel.shape[0])
        draw_levels(axis, mel, extent=extent)
        hertz_ticks(axis, rate, mel.shape[0])
        axis.set(title=title, xlabel="seconds", ylabel="Hz")
    return _save(figure, path)


def plot_pitch_tracks(clips: Clips, path: str | Path | None = None) -> Figure:
    """Draw the strongest pitch class of every voiced frame, all clips in one plot.

    Args:
        clips: title -> (wav [C, T], sample rate in Hz); the mean of the channels is tracked.
        path: .png, .pdf or .svg file to write; None for none.

    Returns:
        The figure.

    Raises:
        InputError: the file has another extension, or cannot be written.
    """
    from audio_diffusion_pytorch.pitch.tracker import PITCH_CLASSES, track_melody

    figure, (axis,) = _rows(1)
    for index, (title, (wav, rate)) in enumerate(clips.items()):
        melody = track_melody(wav.mean(0)[None], rate)
        seconds = np.linspace(0, wav.shape[-1] / rate, melody.classes.shape[-1])
        voiced = melody.voiced[0].numpy()
        offset = 0.25 * index  # separates equal tracks
        pitches = melody.classes[0].numpy()[voiced] + offset
        axis.plot(seconds[voiced], pitches, "s", markersize=3, label=title)
    axis.set(xlabel="seconds", ylabel="pitch class", ylim=(-0.5, 11.9))
    axis.set_yticks(range(12), PITCH_CLASSES)
    axis.grid(axis="y", alpha=0.3)
    # Above the axes, so that the legend hides no pitch.
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(clips), frameon=False)
    return _save(figure, path)


def draw_levels(axis: Any, mel: np.ndarray, **options: Any) -> None:
    """Draw a mel spectrogram from `mel_spectrogram_db` with its colour bar.

    Args:
        axis: axes of matplotlib.
        mel: levels [bands, frames] in dB.
        options: further arguments of `imshow`.
    """
    colours = {"vmin": -90, "vmax": -10, "cmap": "magma"}
    image = axis.imshow(mel, origin="lower", aspect="auto", **colours, **options)
    axis.figure.colorbar(image, ax=axis, label="dB")


def _rows(count: int) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(10, 3.2 * count), layout="constrained")
    return figure, figure.subplots(count, 1, squeeze=False)[:, 0]


def _save(figure: Figure, path: str | Path | None) -> Figure:
    if path is None:
        return figure
    if Path(path).suffix.lower() not in PICTURES:
        raise InputError(
            f"cannot write the picture {path}: its name must end in {', '.join(PICTURES)}"
        )
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return figure


def mel_band(hertz: np.ndarray | float, sample_rate: int, bands: int) -> np.ndarray:
    """Return the place of frequencies on the axis of `mel_spectrogram_db`.

    Args:
        hertz: frequencies in Hz.
        sample_rate: rate of the sound in Hz.
        bands: number of mel bands.

    Returns:
        Places from 0 at 40 Hz to `bands` at half of the sample rate.
    """
    low, high = _mel(40.0), _mel(sample_rate / 2)
    return (_mel(hertz) - low) / (high - low) * bands


def _mel(hertz: np.ndarray | float) -> np.ndarray:
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def hertz_ticks(axis: Any, sample_rate: int, bands: int) -> None:
    """Label the mel bands of an axis with frequencies in Hz.

    Args:
        axis: axes of matplotlib.
        sample_rate: rate of the sound in Hz.
        bands: number of mel bands.
    """
    ticks = np.array([100, 300, 1000, 3000, 10000])
    ticks = ticks[ticks < sample_rate / 2]
    axis.set_yticks(mel_band(ticks, sample_rate, bands), [str(t) for t in ticks])
