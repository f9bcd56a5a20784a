"""A player: draw the performance of a part, and synthesise it with a SoundFont."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audio_diffusion_pytorch.instruments import PITCH_RANGES
from audio_diffusion_pytorch.pitch.octaves import STRAYS, nearest_octaves

if TYPE_CHECKING:
    import numpy as np

SAMPLE_RATE = 24_000  # Hz, of the clips
# Hz; higher than SAMPLE_RATE, because FluidSynth transposes samples without a low-pass filter.
RENDER_RATE = 48_000
# Samples at RENDER_RATE; FluidSynth handles events once per block, so all times are whole blocks.
BLOCK = 64
PEAK = 10 ** (-6 / 20)  # peak of each clip relative to full scale
TAIL = 0.6  # seconds after the last note-off

# General MIDI programs, counted from 0.
PROGRAMS = {
    "violin": 40,
    "viola": 41,
    "cello": 42,
    "double_bass": 43,
    "flute": 73,
    "oboe": 68,
    "clarinet": 71,
    "bassoon": 70,
    "saxophone": 65,
    "trumpet": 56,
    "horn": 60,
    "trombone": 57,
    "tuba": 58,
}
# name: (program, lowest and highest sounding MIDI pitch)
INSTRUMENTS = {
    name: (program, *PITCH_RANGES[name.replace("_", " ")]) for name, program in PROGRAMS.items()
}


class SoundFontError(Exception):
    """A SoundFont that cannot play an instrument."""


@dataclass
class Performance:
    """Performance of a part, independent of the instrument; times in seconds from the start.

    Attributes:
        notes: onset, offset, written MIDI pitch and velocity of each note.
        controls: time, kind ("expression", 0 to 127, or "bend", 8192 for two semitones) and value
            of each change.
        duration: length of the clip.
        bpm: tempo before rubato.
    """

    notes: list[tuple[float, float, int, int]]
    controls: list[tuple[float, str, int]]
    duration: float
    bpm: float


def perform(part: list[list[float]], rng: np.random.Generator) -> Performance:
    """Draw a performance: tempo and its drift, timing, articulation, dynamics, swells, vibrato.

    Args:
        part: notes, see `chorales.read_piece`.
        rng: source of randomness; the order of the draws below fixes the data set of a seed.
    """
    import numpy as np

    columns = (np.array(column, dtype=float) for column in zip(*part, strict=True))
    onset, length, pitch, held = columns
    held[-1] = 1
    bpm, start, duration = _draw_times(onset, length, held, rng)
    stop = _draw_ends(start, duration, pitch, held, rng)
    arc, velocity = _draw_dynamics(onset, pitch, held, rng)
    duration = stop.max() + TAIL
    controls = _draw_controls(start, stop, arc, duration, rng)
    played = zip(start, stop, pitch, velocity, strict=True)
    notes = [(whole_blocks(a), whole_blocks(b), int(p), int(v)) for a, b, p, v in played]
    return Performance(notes, sorted(controls), whole_blocks(duration), bpm)


def _draw_times(
    onset: np.ndarray, length: np.ndarray, held: np.ndarray, rng: np.random.Generator
) -> tuple[float, np.ndarray, np.ndarray]:
    """Draw the tempo in bpm, and the onset and length in seconds of each note.

    The tempo drifts slowly, decreases towards a fermata, and is lowest on the fermata.
    """
    import numpy as np

    count = len(onset)
    end = onset[-1] + length[-1]
    bpm = rng.uniform(60, 110)
    grid = np.linspace(0, end, 16 * math.ceil(end) + 1)
    depth = rng.uniform(0, 0.06)
    period = rng.uniform(12, 32)
    pace = 1 + depth * np.sin(2 * np.pi * (grid / period + rng.uniform()))
    slowing = rng.uniform(0.02, 0.15)
    hold = rng.uniform(1.0, 1.6)
    for k in np.flatnonzero(held):
        before = grid < onset[k] + length[k]
        pace *= 1 - slowing * np.clip(1 - (onset[k] - grid) / 2, 0, 1) * before
        pace /= np.where((grid >= onset[k]) & before, hold, 1.0)
    seconds = np.concatenate([[0.0], np.cumsum(np.diff(grid) * 60 / bpm / pace[:-1])])
    start = np.interp(onset, grid, seconds) + rng.normal(0, 0.01, count).clip(-0.025, 0.025)
    # Keep the onsets in order, at least 50 ms apart.
    spacing = 0.05 * np.arange(count)
    start = np.maximum.accumulate(start - spacing) + spacing
    start += rng.uniform(0.1, 0.3) - start[0]
    duration = np.diff(np.interp(np.stack([onset, onset + length]), grid, seconds), axis=0)[0]
    return bpm, start, duration


def _draw_ends(
    start: np.ndarray,
    duration: np.ndarray,
    pitch: np.ndarray,
    held: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw the offset of each note in seconds, from detached to slightly overlapping.

    A breath follows a fermata, and a gap precedes a repeated pitch.
    """
    import numpy as np

    articulation = rng.uniform(0.75, 1.06)
    gap = np.clip((1 - articulation) * duration, -0.05, 0.25) + rng.normal(0, 0.008, len(start))
    gap = np.where(held > 0, np.maximum(gap, rng.uniform(0.05, 0.2)), gap)
    stop = start + np.maximum(duration - gap, 0.06)
    latest = start[1:] + np.where(pitch[1:] == pitch[:-1], -0.02, 0.05)
    stop[:-1] = np.maximum(np.minimum(stop[:-1], latest), start[:-1] + 0.02)
    return stop


def _draw_dynamics(
    onset: np.ndarray, pitch: np.ndarray, held: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the position in the arc of a phrase (0 to 1) and the velocity of each note.

    A phrase ends at a fermata or after some bars; each phrase swells and fades.
    """
    import numpy as np

    count = len(onset)
    position = np.zeros(count)
    breaks = [0]
    longest = rng.uniform(10, 18)
    for k in range(1, count):
        if held[k - 1] or onset[k] - onset[breaks[-1]] > longest:
            breaks.append(k)
    for a, b in zip(breaks, [*breaks[1:], count], strict=True):
        position[a:b] = (np.arange(a, b) - a + 0.5) / (b - a)
    arc = np.sin(np.pi * position ** rng.uniform(0.7, 1.3))
    mean = rng.uniform(50, 100)
    swell = rng.uniform(4, 18) * (arc - 0.5)
    loudness = mean + swell + 0.3 * (pitch - pitch.mean())
    velocity = np.rint(loudness + rng.normal(0, 4, count)).clip(25, 120).astype(int)
    return arc, velocity


def _draw_controls(
    start: np.ndarray, stop: np.ndarray, arc: np.ndarray, duration: float, rng: np.random.Generator
) -> list[tuple[float, str, int]]:
    """Draw the changes of expression (swells) and pitch bend (vibrato) on a grid of 8 ms."""
    import numpy as np

    time = np.arange(0, duration, 0.008)
    now = np.searchsorted(start, time, side="right").clip(1) - 1
    inside = ((time - start[now]) / (stop - start)[now]).clip(0, 1)
    swell = np.interp(time, start, arc)
    single = np.sin(np.pi * inside ** rng.uniform(0.5, 1.0)) * ((stop - start)[now] > 0.5)
    expression = 127 - rng.uniform(0, 35) * (1 - swell) - rng.uniform(0, 18) * (1 - single)
    depth = rng.choice([0.0, rng.uniform(5, 30)], p=[0.35, 0.65])  # cents
    delay = rng.uniform(0.1, 0.35, len(start))
    ramp = ((time - start[now] - delay[now]) / 0.25).clip(0, 1)
    rate = rng.uniform(4.6, 6.3) * (1 + 0.06 * np.interp(time, start, rng.normal(0, 1, len(start))))
    vibrato = depth * ramp * np.sin(2 * np.pi * np.cumsum(rate) * 0.008)
    return [
        *changes(time[::3], "expression", expression[::3]),
        *changes(time, "bend", vibrato * 8192 / 200),
    ]


def changes(time: np.ndarray, kind: str, values: np.ndarray) -> Iterator[tuple[float, str, int]]:
    """Yield the controls (time, kind, value) whose rounded value differs from the previous one."""
    last = None
    for t, value in zip(time.tolist(), values.round().astype(int).tolist(), strict=True):
        if value != last:
            yield whole_blocks(t), kind, value
        last = value


def whole_blocks(seconds: float) -> float:
    """Round a time in seconds to whole blocks of FluidSynth."""
    return round(seconds * RENDER_RATE / BLOCK) * BLOCK / RENDER_RATE


def octaves_into(instrument: str, pitches: list[int]) -> int | None:
    """Return the octaves that bring a part nearest to the middle of an instrument's range.

    Args:
        instrument: name of the instrument.
        pitches: MIDI pitches of the part.

    Returns:
        Octaves; None: more than 2 % of the notes remain outside the range.
    """
    _, low, high = INSTRUMENTS[instrument]
    octaves, outside = nearest_octaves(pitches, low, high)
    return octaves if outside <= STRAYS else None


def played_pitch(instrument: str, pitch: int, octaves: int) -> int:
    """Transpose a MIDI pitch by octaves, and fold it into the range of the instrument."""
    _, low, high = INSTRUMENTS[instrument]
    pitch += 12 * octaves
    while pitch < low:
        pitch += 12
    while pitch > high:
        pitch -= 12
    return pitch


# Sound


def play(performance: Performance, pitches: list[int], soundfont: str, program: int) -> np.ndarray:
    """Synthesise a performance.

    Args:
        performance: the performance.
        pitches: sounding MIDI pitch of each note.
        soundfont: path of the SoundFont.
        program: General MIDI program, counted from 0.

    Returns:
        Waveform [T] at SAMPLE_RATE, float32, without reverb, with a peak of PEAK.

    Raises:
        SoundFontError: FluidSynth cannot read the SoundFont, or the SoundFont lacks the program.
    """
    import fluidsynth
    import numpy as np

    # Float samples, because the dither of 16-bit samples depends on previous clips. Each clip has a
    # new synthesiser, because FluidSynth's voices keep state. Dynamic loading reads only the
    # samples of the program.
    pointer = fluidsynth.c_void_p
    integer = fluidsynth.c_int
    types = (pointer, integer, pointer, integer, integer, pointer, integer, integer)
    write = fluidsynth.cfunc(
        "fluid_synth_write_float", integer, *((f"a{i}", kind, 1) for i, kind in enumerate(types))
    )
    options = {
        "synth.reverb.active": 0,
        "synth.chorus.active": 0,
        "synth.dynamic-sample-loading": 1,
    }
    synth = fluidsynth.Synth(gain=0.5, samplerate=RENDER_RATE, channels=16, **options)
    try:
        font = synth.sfload(soundfont)
        if font == -1:
            raise SoundFontError(f"FluidSynth cannot read the SoundFont {soundfont}")
        if synth.program_select(0, font, 0, program) != 0:
            raise SoundFontError(f"SoundFont {soundfont} lacks General MIDI program {program}")
        actions: list[tuple[float, int, str, int, int]] = [
            (time, 0, kind, value, 0) for time, kind, value in performance.controls
        ]
        for (onset, offset, _, velocity), pitch in zip(performance.notes, pitches, strict=True):
            actions += [(offset, 1, "off", pitch, 0), (onset, 2, "on", pitch, velocity)]
        stereo = np.empty((2, round(performance.duration * RENDER_RATE)), np.float32)
        left, right = (side.ctypes.data for side in stereo)
        done = 0
        end = (performance.duration, 3, "end", 0, 0)
        for time, _, kind, value, velocity in [*sorted(actions), end]:
            now = round(time * RENDER_RATE)
            if now > done:
                write(synth.synth, now - done, left, done, 1, right, done, 1)
                done = now
            if kind == "expression":
                synth.cc(0, 11, value)
            elif kind == "bend":
                synth.pitch_bend(0, value)
            elif kind == "off":
                synth.noteoff(0, value)
            elif kind == "on":
                synth.noteon(0, value, velocity)
    finally:
        synth.delete()
    audio = halve(stereo.mean(axis=0))
    return audio * (PEAK / max(float(np.abs(audio).max()), 1e-9))


def halve(audio: np.ndarray) -> np.ndarray:
    """Halve the sample rate of audio [T] at 48 kHz, with linear phase and without delay.

    The filter is flat to 11 kHz and reaches -90 dB at 12.1 kHz.

    Overlap-save; the inverse transforms use only the lower half of each spectrum.
    """
    import numpy as np

    size = 8192
    taps = 257
    t = np.arange(taps) - taps // 2
    kernel = 0.481 * np.sinc(0.481 * t) * np.kaiser(taps, 9.0)
    response = np.fft.rfft(kernel, size)[: size // 4 + 1].astype(np.complex64) / 2
    hop = size - taps + 1
    half = taps // 2
    count = math.ceil(len(audio) / hop)
    padded = np.pad(audio, (half, count * hop + taps - len(audio)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:count]
    out = np.fft.irfft(np.fft.rfft(frames)[:, : size // 4 + 1] * response, size // 2)[:, half:]
    return np.ascontiguousarray(out.reshape(-1)[: (len(audio) + 1) // 2], dtype=np.float32)
