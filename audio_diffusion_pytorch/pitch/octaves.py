"""Moving a melody by whole octaves into the range of another instrument, at its own tempo."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from audio_diffusion_pytorch.audio import AudioReader
from audio_diffusion_pytorch.instruments import MAX_OCTAVES

Octaves = int | Literal["auto"]
STRAYS = 0.02  # share of the notes that may lie outside a range
HEARD_SECONDS = 60  # of a recording, in which its register is looked for
_CLEAR = 0.5  # posterior of a note that counts there
_SILENT = 1e-5  # peak of silence before the first sound
_TONE_FFT = 2048  # samples
_FADE = 0.05  # s at both ends: less than counts in the cross-fades of a bridge's windows
_EQUALISER_DB = 25.0  # most that the equaliser changes a frequency by, up or down


def heard_pitches(file: AudioReader) -> list[float]:
    """MIDI pitch of each frame of a recording's first minute in which the pitch tracker clearly finds a note."""
    wav = first_sound(file.mono_blocks(), file.info.sample_rate, mid=True)
    return [] if wav is None else pitches_of(wav, file.info.sample_rate)


def first_sound(blocks: Iterable[Tensor], sample_rate: int, mid: bool) -> Tensor | None:
    """The first minute of sound [1, T] of blocks [C, n] at sample_rate Hz; silence before it does not count.

    Args:
        mid: the average of the channels, in phase; else the loudest channel, as each is bridged on its own.
    """
    import torch

    from audio_diffusion_pytorch.audio import in_phase, to_mono

    parts, missing = [], HEARD_SECONDS * sample_rate
    for block in blocks:
        if not parts:
            loud = (block.abs() >= _SILENT).any(0)
            if not loud.any():
                continue
            block = block[
                :, int(loud.int().argmax()) :
            ]  # the same however the recording is cut into blocks
        parts.append(block[:, :missing])
        missing -= parts[-1].shape[1]
        if missing <= 0:
            break
    if not parts:
        return None
    wav = torch.cat(parts, -1)
    if mid:
        return to_mono(in_phase(wav))
    return wav[wav.square().sum(-1).argmax()][None]


def pitches_of(wav: Tensor, sample_rate: int) -> list[float]:
    """MIDI pitch of each frame of wav [1, T], T > 0, in which the pitch tracker clearly finds a note."""
    from audio_diffusion_pytorch.pitch.tracker import posteriors

    return clear_pitches(without_pauses(posteriors(wav, sample_rate)["note"][0], wav))


def without_pauses(note: Tensor, wav: Tensor) -> Tensor:
    """Note posteriors [F, 88] of wav [1, T], zeros 30 dB below the loudest frame: a hum has a pitch, too."""
    import torch.nn.functional as F

    if not len(note):
        return note
    power = F.adaptive_avg_pool1d(wav.to(note.device).square(), len(note))[0]
    return note * (power >= 1e-3 * power.max())[:, None]


def clear_pitches(note: Tensor) -> list[float]:
    """Note posteriors [F, 88] -> MIDI pitch of each frame with a clear note."""
    from audio_diffusion_pytorch.pitch.notes import LOWEST

    strength, keys = note.max(-1)
    return (keys[strength >= _CLEAR] + LOWEST).tolist()


def nearest_octaves(pitches: Sequence[float], low: float, high: float) -> tuple[int, float]:
    """Octaves that bring a part into a range, nearest its middle, and the share of the notes still outside.

    Args:
        pitches: MIDI numbers, one or more.
        low, high: the range, both included.
    """
    mean = sum(pitches) / len(pitches)

    def cost(octaves: int) -> tuple[int, float]:
        outside = sum(not low <= pitch + 12 * octaves <= high for pitch in pitches)
        return outside, abs(mean + 12 * octaves - (low + high) / 2)

    best = min(range(-MAX_OCTAVES, MAX_OCTAVES + 1), key=cost)
    return best, cost(best)[0] / len(pitches)


def octaves_for(pitches: Sequence[float], low: float, high: float) -> int:
    """Octaves by which a melody is moved for an instrument: 0 where it lies in the range, else `nearest_octaves`.

    Up to 2 % of the notes may lie outside. No pitches: 0.
    """
    outside = sum(not low <= pitch <= high for pitch in pitches)
    return 0 if outside <= STRAYS * len(pitches) else nearest_octaves(pitches, low, high)[0]


def shift_octaves(wav: Tensor, octaves: int, sample_rate: int) -> Tensor:
    """wav [C, T] moved by whole octaves, duration and tone kept; the peak stays at or below 1.

    A phase vocoder moves the whole spectrum, and with it the resonances that make an instrument's tone: an equaliser
    then brings the average spectrum back to the recording's. Models know their instrument by its tone.
    """
    if octaves == 0:
        return wav
    import torch

    from audio_diffusion_pytorch.pitch.phase_vocoder import shift_pitch

    moved = torch.from_numpy(shift_pitch(wav.cpu().numpy(), 12 * octaves, sample_rate)).to(
        wav.device
    )
    out = _with_tone_of(moved, wav, sample_rate)
    return out / max(1.0, float(out.abs().max()))


def _with_tone_of(wav: Tensor, other: Tensor, sample_rate: int) -> Tensor:
    """wav [C, T] with the level and smoothed average spectrum of `other` [C, T], by a gain for each frequency."""
    import torch
    from torchaudio.functional import fftconvolve

    from audio_diffusion_pytorch.audio import fade_ends

    # The ends fade, as the filter would raise the highs of a sound that breaks off.
    wav = fade_ends(wav, round(_FADE * sample_rate))
    have, want = (_tone(x) for x in (wav, other))
    gain = (want / (have + 1e-9 * have.max() + 1e-20)).sqrt()
    decibels = (20 * gain.clamp_min(1e-6).log10()).clamp(-_EQUALISER_DB, _EQUALISER_DB)
    # A zero-phase filter of one window's length: the ends of the recording do not meet, as in one long transform.
    kernel = torch.fft.irfft(10 ** (decibels / 20)).roll(_TONE_FFT // 2)[1:] * torch.hann_window(
        _TONE_FFT - 1, periodic=False, device=wav.device
    )
    out = fftconvolve(wav, kernel.expand(len(wav), -1), mode="same")
    return out * (other.square().mean() / (out.square().mean() + 1e-20)).sqrt()


def _tone(wav: Tensor) -> Tensor:
    """Mean power spectrum of wav [C, T] over half an octave around each of the bins -> [bins]."""
    import torch

    window = torch.hann_window(_TONE_FFT, device=wav.device)
    wav = torch.nn.functional.pad(wav, (_TONE_FFT // 2, _TONE_FFT // 2))
    power = torch.stft(
        wav, _TONE_FFT, _TONE_FFT // 4, window=window, center=False, return_complex=True
    )
    total = torch.nn.functional.pad(power.abs().square().mean((0, 2)).double().cumsum(0), (1, 0))
    bins = torch.arange(len(total) - 1, device=wav.device)
    low = (bins * 2**-0.25).ceil().long()
    high = ((bins * 2**0.25).floor().long() + 1).clamp(max=len(bins))
    return ((total[high] - total[low]) / (high - low)).float()
