"""The kinds of audio files: which are read, which are written, and what each can hold."""

from dataclasses import dataclass

from audio_diffusion_pytorch.errors import InputError

# Endings that are looked for in folders. A file that is named is read whatever its ending: its content decides.
EXTENSIONS = (
    *(
        ".wav",
        ".wave",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".mp2",
        ".mpga",
        ".m4a",
        ".m4b",
        ".mp4",
        ".mov",
    ),
    *(
        ".aac",
        ".aif",
        ".aiff",
        ".aifc",
        ".caf",
        ".w64",
        ".rf64",
        ".au",
        ".snd",
        ".wma",
        ".webm",
        ".mka",
        ".mkv",
    ),
    *(".3gp", ".amr"),
)
OUTPUT_EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".opus")
KEPT_EXTENSIONS = (
    ".wav",
    ".flac",
    ".ogg",
)  # an output has its input's ending where it is one of these, else .flac
BLOCK = 1 << 18  # frames a block: libsndfile's Vorbis encoder overflows its stack on long writes
OPUS_RATE = 48000
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_AAC_RATES = (*_MP3_RATES, 64000, 88200, 96000)
_CHANNELS = {".wav": 1024, ".flac": 8, ".ogg": 255, ".mp3": 2, ".m4a": 8, ".opus": 8}
_RATES = {".flac": 655350, ".ogg": 200000}  # Hz at most


class NotAudio(InputError):
    """A file that holds no sound at all, whatever its name: a text, a picture, a film without sound."""


@dataclass(frozen=True)
class AudioInfo:
    """Length in frames, rate in Hz, channels, and the name of the sample format (`PCM_24`, `VORBIS`, `AAC` ...)."""

    frames: int
    sample_rate: int
    channels: int
    subtype: str

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


def check_format(extension: str, sample_rate: int, channels: int) -> None:
    """Ask whether an output format can hold a recording, before any work is done.

    Args:
        extension: of the output file (`.flac`), in any case.
        sample_rate: in Hz.

    Raises:
        InputError: it cannot; the message says what would do.
    """
    extension = extension.lower()
    if extension not in OUTPUT_EXTENSIONS:
        raise InputError(
            f"cannot write {extension or 'a file without ending'}: use {', '.join(OUTPUT_EXTENSIONS)}"
        )
    if channels > _CHANNELS[extension]:
        takes = [
            e
            for e in KEPT_EXTENSIONS
            if channels <= _CHANNELS[e] and sample_rate <= _RATES.get(e, sample_rate)
        ]
        advice = f"write {' or '.join(takes)}, or bridge their average with channels=mid"
        raise InputError(
            f"{extension} holds at most {_CHANNELS[extension]} channels, not {channels}: {advice}"
        )
    if extension == ".m4a" and channels == 7:
        raise InputError(".m4a holds 1 to 6 or 8 channels, not 7: write .flac or .wav")
    rates = {".mp3": _MP3_RATES, ".m4a": _AAC_RATES}.get(extension)
    if rates is not None and sample_rate not in rates:
        listing = ", ".join(map(str, rates))
        raise InputError(
            f"{extension} holds no sound at {sample_rate} Hz, only at {listing}: write .flac or .wav"
        )
    if sample_rate > _RATES.get(extension, sample_rate):
        raise InputError(
            f"{extension} holds at most {_RATES[extension]} Hz, not {sample_rate}: write .wav"
        )


def written_rate(extension: str, sample_rate: int) -> int:
    """Rate in Hz at which a recording is written: Opus is always 48 kHz, the others keep the rate."""
    return OPUS_RATE if extension.lower() == ".opus" else sample_rate
