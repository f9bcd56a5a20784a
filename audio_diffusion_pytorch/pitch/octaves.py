"""Transposition of melodies by whole octaves into the range of another instrument."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from audio_diffusion_pytorch.instruments import MAX_OCTAVES

if TYPE_CHECKING:
    from torch import Tensor

    from audio_diffusion_pytorch.audio import AudioReader

Octaves = int | Literal["auto"]
STRAYS = 0.02  # largest share of notes outside a range
HEARD_SECONDS = 60  # seconds of a recording that determine its range
_CLEAR = 0.5  # lowest posterior of a clear note
_SILENT = 1e-5  # peak below which samples before the first sound are silent
_TONE_FFT = 2048  # samples
_FADE = 0.05  # seconds at both ends: shorter than the cross-fades of a bridge's windows
_EQUALISER_DB = 25.0  # largest gain of the equaliser in dB, up or down


def heard_pitches(file: AudioReader) -> list[float]:
    """Return the MIDI pitch of each frame with a clear note in the first minute of a recording."""
    wav = first_sound(file.mono_blocks(), file.info.sample_rate, mid=True)
    return [] if wav is None else pitches_of(wav, file.info.sample_rate)


def first_sound(blocks: Iterable[Tensor], sample_rate: int, mid: bool) -> Tensor | None:
    """Return the first minute of sound, without leading silence.

    Args:
        blocks: blocks [C, n] of the recording.
        sample_rate: sample rate in Hz.
        mid: average the channels in phase; otherwise select the loudest channel, because a bridge
            transfers each channel separately.

    Returns:
        Waveform [1, T]; None: the recording is silent.
    """
    import torch

    from audio_diffusion_pytorch.audio import in_phase, to_mono

    parts: list[Tensor] = []
    missing = HEARD_SECONDS * sample_rate
    for block in blocks:
        if not parts:
            loud = (block.abs() >= _SILENT).any(0)
            if not loud.any():
                continue
            # Start at the first loud sample: the result must not depend on the size of the blocks.
            block = block[:, int(loud.int().argmax()) :]
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
    """Return the MIDI pitch of each frame with a clear note in wav [1, T], T > 0."""
    from audio_diffusion_pytorch.pitch.tracker import note_posteriors

    return clear_pitches(without_pauses(note_posteriors(wav, sample_rate)[0], wav))


def without_pauses(note: Tensor, wav: Tensor) -> Tensor:
    """Zero note posteriors [F, 88] of frames 30 dB below the loudest frame of wav [1, T].

    Hum has a pitch, too.
    """
    import torch.nn.functional as F

    if not len(note):
        return note
    power = F.adaptive_avg_pool1d(wav.to(note.device).square(), len(note))[0]
    return note * (power >= 1e-3 * power.max())[:, None]


def clear_pitches(note: Tensor) -> list[float]:
    """Return the MIDI pitch of each frame with a clear note in note posteriors [F, 88]."""
    from audio_diffusion_pytorch.pitch.notes import LOWEST

    strength, keys = note.max(-1)
    return (keys[strength >= _CLEAR] + LOWEST).tolist()


def nearest_octaves(pitches: Sequence[float], low: float, high: float) -> tuple[int, float]:
    """Find the transposition that brings a part into a range, nearest to its middle.

    Args:
        pitches: MIDI pitches, one or more.
        low: lowest pitch of the range.
        high: highest pitch of the range.

    Returns:
        Octaves, and the share of the transposed notes outside the range.
    """
    mean = sum(pitches) / len(pitches)

    def cost(octaves: int) -> tuple[float, float]:
        outside = share_outside(pitches, octaves, low, high)
        return outside, abs(mean + 12 * octaves - (low + high) / 2)

    best = min(range(-MAX_OCTAVES, MAX_OCTAVES + 1), key=cost)
    return best, cost(best)[0]


def share_outside(pitches: Sequence[float], octaves: int, low: float, high: float) -> float:
    """Return the share of transposed notes outside a range; 0 without notes.

    Args:
        pitches: MIDI pitches.
        octaves: octaves of the transposition.
        low: lowest pitch of the range.
        high: highest pitch of the range.
    """
    outside = sum(not low <= pitch + 12 * octaves <= high for pitch in pitches)
    return outside / max(len(pitches), 1)


def octaves_for(pitches: Sequence[float], low: float, high: float) -> int:
    """Return the octaves of a transposition: 0 if the melody lies in the range, else the nearest.

    Args:
        pitches: MIDI pitches; none: 0 octaves.
        low: lowest pitch of the range.
        high: highest pitch of the range; 2 % of the notes may lie outside the range.
    """
    if share_outside(pitches, 0, low, high) <= STRAYS:
        return 0
    return nearest_octaves(pitches, low, high)[0]


def shift_octaves(wav: Tensor, octaves: int, sample_rate: int) -> Tensor:
    """Transpose by whole octaves, with the duration, the timbre and a peak of at most 1.

    A phase vocoder shifts the whole spectrum, including the resonances of the instrument's timbre;
    an equaliser then restores the average spectrum of the recording.

    Args:
        wav: [C, T].
        octaves: octaves, negative for downwards.
        sample_rate: sample rate in Hz.

    Returns:
        Transposed waveform [C, T].
    """
    if octaves == 0:
        return wav
    import torch

    from audio_diffusion_pytorch.pitch.phase_vocoder import shift_pitch

    shifted = shift_pitch(wav.cpu().numpy(), 12 * octaves, sample_rate)
    out = _with_tone_of(torch.from_numpy(shifted).to(wav.device), wav, sample_rate)
    return out / max(1.0, float(out.abs().max()))


def _with_tone_of(wav: Tensor, other: Tensor, sample_rate: int) -> Tensor:
    """Equalise wav [C, T] to the level and the smoothed average spectrum of `other` [C, T]."""
    import torch
    from torchaudio.functional import fftconvolve

    from audio_diffusion_pytorch.audio import fade_ends

    # Fade the ends: the filter would amplify the high frequencies of a sound that breaks off.
    wav = fade_ends(wav, round(_FADE * sample_rate))
    power = _tone(wav)
    gain = (_tone(other) / (power + 1e-9 * power.max() + 1e-20)).sqrt()
    decibels = (20 * gain.clamp_min(1e-6).log10()).clamp(-_EQUALISER_DB, _EQUALISER_DB)
    # A zero-phase filter with the length of one window; one long transform would wrap around at the
    # ends.
    window = torch.hann_window(_TONE_FFT - 1, periodic=False, device=wav.device)
    kernel = torch.fft.irfft(10 ** (decibels / 20)).roll(_TONE_FFT // 2)[1:] * window
    out = fftconvolve(wav, kernel.expand(len(wav), -1), mode="same")
    return out * (other.square().mean() / (out.square().mean() + 1e-20)).sqrt()


def _tone(wav: Tensor) -> Tensor:
    """Mean power spectrum [bins] of wav [C, T], smoothed over half an octave around each bin."""
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
