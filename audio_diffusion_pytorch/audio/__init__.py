"""Read, write, resample and measure audio. Waveforms are [C, T] float32 in [-1, 1]."""

from audio_diffusion_pytorch.audio.dsp import (
    LevelMeter,
    Resampler,
    active_level,
    active_rms,
    fade_ends,
    in_phase,
    pause_noise,
    resample,
    to_db,
    to_mono,
)
from audio_diffusion_pytorch.audio.formats import (
    EXTENSIONS,
    KEPT_EXTENSIONS,
    OUTPUT_EXTENSIONS,
    AudioInfo,
    NotAudio,
    check_format,
    written_rate,
)
from audio_diffusion_pytorch.audio.highpass import HighPass
from audio_diffusion_pytorch.audio.reader import AudioReader, info, read, read_mono
from audio_diffusion_pytorch.audio.writer import write, writing

__all__ = [
    "EXTENSIONS",
    "KEPT_EXTENSIONS",
    "OUTPUT_EXTENSIONS",
    "AudioInfo",
    "AudioReader",
    "HighPass",
    "LevelMeter",
    "NotAudio",
    "Resampler",
    "active_level",
    "active_rms",
    "check_format",
    "fade_ends",
    "in_phase",
    "info",
    "pause_noise",
    "read",
    "read_mono",
    "resample",
    "to_db",
    "to_mono",
    "write",
    "writing",
    "written_rate",
]
