"""Pictures of the page: a spectrogram with its pitch track, a trade-off plot, loss curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from audio_diffusion_pytorch.utils.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SECONDS = 120  # start of a recording that a picture covers
# Share of the picture left and right of the axes; the page draws the position of the player there.
LEFT, RIGHT = 0.055, 0.985
_INK = "#8a8f98"  # readable on white and on black
_TRACK = "#4fe3ff"
_LINES = ("#2f81f7", "#e36209")
_LOWEST = 40.0  # Hz


def draw_spectrogram(sound: Path, picture: Path) -> Path:
    """Draw a mel spectrogram with the pitch track of a file.

    Args:
        sound: audio file; the first two minutes are drawn.
        picture: .png file to write.

    Returns:
        The picture.

    Raises:
        InputError: the file cannot be read, or the picture cannot be written.
    """
    import numpy as np

    from audio_diffusion_pytorch.audio import AudioReader
    from audio_diffusion_pytorch.pitch.notes import f0_track
    from audio_diffusion_pytorch.pitch.octaves import without_pauses
    from audio_diffusion_pytorch.pitch.tracker import note_posteriors
    from audio_diffusion_pytorch.plots import mel_spectrogram_db

    with AudioReader(sound) as file:
        rate = file.info.sample_rate
        wav = file.read_mono(0, min(file.info.frames, SECONDS * rate))
    levels = mel_spectrogram_db(wav[0], rate, max_frames=1600)
    figure, axes = _figure(10, 2.4)
    seconds = wav.shape[-1] / rate
    axes.imshow(
        levels,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, len(levels)),
        vmin=-90,
        vmax=-10,
        cmap="magma",
    )
    track = f0_track(without_pauses(note_posteriors(wav, rate)[0], wav))
    low, high = _mel(_LOWEST), _mel(rate / 2)
    bands = (_mel(track.hertz) - low) / (high - low) * len(levels)
    axes.plot(track.times, np.where(track.voiced, bands, np.nan), color=_TRACK, linewidth=1.8)
    ticks = np.array([100, 300, 1000, 3000, 10000])
    ticks = ticks[ticks < rate / 2]
    axes.set_yticks((_mel(ticks) - low) / (high - low) * len(levels), [f"{t}" for t in ticks])
    axes.set(xlim=(0, seconds), ylim=(0, len(levels)))
    axes.set_xlabel("seconds", color=_INK)
    axes.set_ylabel("Hz", color=_INK)
    return _save(figure, picture)


def draw_trade_off(points: Sequence[Mapping[str, float]], target: str, picture: Path) -> Path:
    """Draw how much of the melody stays and how much an output sounds like the target.

    Args:
        points: for each output `sigma`, `melody` and `target`, the last two from 0 to 1.
        target: name of the target instrument.
        picture: .png file to write.

    Returns:
        The picture.
    """
    figure, axes = _figure(7, 3.2, left=0.09)
    sigmas = [point["sigma"] for point in points]
    kept = [100 * point["melody"] for point in points]
    alike = [100 * point["target"] for point in points]
    axes.plot(sigmas, kept, "o-", color=_LINES[0], label="notes kept")
    axes.plot(sigmas, alike, "s--", color=_LINES[1], label=f"sounds like {target}")
    axes.set_xscale("log")
    axes.set_xticks(sigmas, [f"{sigma:g}" for sigma in sigmas])
    axes.minorticks_off()
    axes.set_ylim(-3, 103)
    axes.set_xlabel("how much to change (sigma)", color=_INK)
    axes.set_ylabel("%", color=_INK)
    axes.grid(alpha=0.3)
    _legend(axes)
    return _save(figure, picture)


def draw_losses(losses: Mapping[str, Sequence[tuple[int, float]]], picture: Path) -> Path:
    """Draw the loss curves of a training.

    Args:
        losses: name -> (step, value).
        picture: .png file to write.

    Returns:
        The picture.
    """
    figure, axes = _figure(9, 3.2, left=0.08)
    names = {"train_loss": "training", "valid_loss": "held-out files"}
    for (name, points), color in zip(losses.items(), _LINES, strict=False):
        steps, values = zip(*points, strict=True)
        style = "o-" if name == "valid_loss" else "-"
        label = names.get(name, name)
        axes.plot(steps, values, style, color=color, label=label, markersize=3)
    axes.set_xlabel("step", color=_INK)
    axes.set_ylabel("loss", color=_INK)
    axes.grid(alpha=0.3)
    _legend(axes)
    return _save(figure, picture)


def _mel(hertz):
    import numpy as np

    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def _figure(width: float, height: float, left: float = LEFT) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.patch.set_alpha(0)
    bottom, top = 0.45 / height, 1 - 0.12 / height
    axes = figure.add_axes((left, bottom, RIGHT - left, top - bottom))
    axes.patch.set_alpha(0)
    axes.tick_params(colors=_INK, labelsize=9)
    for side in axes.spines.values():
        side.set_color(_INK)
    return figure, axes


def _legend(axes: Axes) -> None:
    legend = axes.legend(frameon=False)
    for text in legend.get_texts():
        text.set_color(_INK)


def _save(figure: Figure, picture: Path) -> Path:
    with atomic_write(picture) as temporary:
        figure.savefig(temporary, dpi=110)
    return picture
