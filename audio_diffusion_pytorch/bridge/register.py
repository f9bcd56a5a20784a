"""Choose the octaves that move a recording into the range of a target."""

from collections.abc import Iterable

from torch import Tensor

from audio_diffusion_pytorch.models.instrument import InstrumentSpec, pitch_range
from audio_diffusion_pytorch.pitch.octaves import first_sound, octaves_for, pitches_of


def octaves_into_range(blocks: Iterable[Tensor], sample_rate: int, spec: InstrumentSpec) -> int:
    """Choose octaves that move the first minute of a recording into the range of an instrument.

    Args:
        blocks: [C, n].
        sample_rate: in Hz.
        spec: specification of the target model.

    Returns:
        Octaves; 0 inside the range, without a clear pitch, or with an unknown range.
    """
    limits = pitch_range(spec)
    if limits is None:
        return 0
    wav = first_sound(blocks, sample_rate, mid=True)
    return 0 if wav is None else octaves_for(pitches_of(wav, sample_rate), *limits)
