"""Audio formats: endings for input and output, and the rates and channels of each."""

from dataclasses import dataclass

from audio_diffusion_pytorch.errors import InputError

# Endings of recordings in folders. A named file is read by its content, whatever its ending.
# fmt: off
EXTENSIONS = (
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".mpga", ".m4a", ".m4b",
    ".mp4", ".mov", ".aac", ".aif", ".aiff", ".aifc", ".caf", ".w64", ".rf64", ".au", ".snd",
    ".wma", ".webm", ".mka", ".mkv", ".3gp", ".amr",
)
# fmt: on
OUTPUT_EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".opus")
# Outputs keep these endings of their inputs; other endings become .flac.
KEPT_EXTENSIONS = (".wav", ".flac", ".ogg")
BLOCK = 1 << 18  # frames a block: libsndfile's Vorbis encoder overflows its stack on long writes
OPUS_RATE = 48000
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_AAC_RATES = (*_MP3_RATES, 64000, 88200, 96000)
_CHANNELS = {".wav": 1024, ".flac": 8, ".ogg": 255, ".mp3": 2, ".m4a": 8, ".opus": 8}
_RATES = {".flac": 655350, ".ogg": 200000}  # Hz at most


class NotAudio(InputError):
    """Error of a file without sound: a text, a picture, a film without a sound track."""


@dataclass(frozen=True)
class AudioInfo:
    """Properties of an audio file.

    Args:
        frames: length in frames.
        sample_rate: in Hz.
        channels: number of channels.
        subtype: name of the sample format (`PCM_24`, `VORBIS`, `AAC` ...).
    """

    frames: int
    sample_rate: int
    channels: int
    subtype: str

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.frames / self.sample_rate


def check_format(extension: str, sample_rate: int, channels: int) -> None:
    """Check that an output format can hold a recording.

    Args:
        extension: ending of the output file (`.flac`), in any case.
        sample_rate: in Hz.
        channels: number of channels.

    Raises:
        InputError: the format cannot hold the recording; the message names formats that can.
    """
    extension = extension.lower()
    if extension not in OUTPUT_EXTENSIONS:
        written = extension or "a file without ending"
        raise InputError(f"cannot write {written}: use {', '.join(OUTPUT_EXTENSIONS)}")
    if channels > _CHANNELS[extension]:
        others = [
            other
            for other in KEPT_EXTENSIONS
            if channels <= _CHANNELS[other] and sample_rate <= _RATES.get(other, sample_rate)
        ]
        advice = f"write {' or '.join(others)}, or bridge their average with channels=mid"
        raise InputError(
            f"{extension} holds at most {_CHANNELS[extension]} channels, not {channels}: {advice}"
        )
    if extension == ".m4a" and channels == 7:
        raise InputError(".m4a holds 1 to 6 or 8 channels, not 7: write .flac or .wav")
    rates = {".mp3": _MP3_RATES, ".m4a": _AAC_RATES}.get(extension)
    if rates is not None and sample_rate not in rates:
        listing = ", ".join(map(str, rates))
        raise InputError(
            f"{extension} does not support {sample_rate} Hz, only {listing}: write .flac or .wav"
        )
    if sample_rate > _RATES.get(extension, sample_rate):
        raise InputError(
            f"{extension} holds at most {_RATES[extension]} Hz, not {sample_rate}: write .wav"
        )


def written_rate(extension: str, sample_rate: int) -> int:
    """Return the rate in Hz of a written file: 48 kHz for Opus, `sample_rate` for other formats."""
    return OPUS_RATE if extension.lower() == ".opus" else sample_rate
