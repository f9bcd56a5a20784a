"""Audio files and waveforms: read, write, resample, to mono. Waveforms are [C, T] float32 in [-1, 1]."""

from audio_diffusion_pytorch.audio.dsp import (
    LevelMeter,
    Resampler,
    active_rms,
    fade_ends,
    in_phase,
    resample,
    to_db,
    to_mono,
)
from audio_diffusion_pytorch.audio.formats import EXTENSIONS, OUTPUT_EXTENSIONS, AudioInfo
from audio_diffusion_pytorch.audio.reader import AudioReader, info, read
from audio_diffusion_pytorch.audio.writer import write, writing

__all__ = [
    "EXTENSIONS",
    "OUTPUT_EXTENSIONS",
    "AudioInfo",
    "AudioReader",
    "LevelMeter",
    "Resampler",
    "active_rms",
    "fade_ends",
    "in_phase",
    "info",
    "read",
    "resample",
    "to_db",
    "to_mono",
    "write",
    "writing",
]
