"""The kinds of audio files: what is read, what is written."""

from dataclasses import dataclass

EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")
OUTPUT_EXTENSIONS = (".wav", ".flac", ".ogg")
BLOCK = 1 << 18  # frames a block: libsndfile's Vorbis encoder overflows its stack on long writes


@dataclass(frozen=True)
class AudioInfo:
    """Length in frames, rate in Hz, channels, and libsndfile's name of the sample format (`PCM_24`, `VORBIS` ...)."""

    frames: int
    sample_rate: int
    channels: int
    subtype: str

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate
