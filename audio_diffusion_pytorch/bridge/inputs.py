"""Validate bridge inputs, and buffer the start of a stream to estimate its level and tuning."""

from collections.abc import Callable, Iterable, Iterator
from numbers import Integral

import torch
from torch import Tensor

from audio_diffusion_pytorch.errors import InputError

FIRST_SOUND = 1e-2  # peak (-40 dB): fainter sound may be room noise, which must not set the level
EDGE = 0.08  # s at the start of a stream in which the high-pass filter has not settled
AUDIBLE = 0.1  # peak relative to the level from which sound counts for the choice of octaves


def validate_waveform(
    wav: Tensor, sample_rate: int, name: str = "wav [C, T] with C, T > 0", least: int = 1
) -> Tensor:
    """Validate a waveform and convert it to float32 on the CPU.

    Args:
        wav: [C, T], T >= least.
        sample_rate: in Hz.
        name: name of the argument in errors.
        least: smallest T.

    Returns:
        wav [C, T].

    Raises:
        InputError: wav has another shape, another type or values that are not finite, or
            sample_rate is not a positive whole number.
    """
    if not isinstance(sample_rate, Integral) or sample_rate < 1:
        raise InputError(f"sample_rate={sample_rate} must be a positive whole number, in Hz")
    if wav.dim() != 2 or not len(wav) or wav.shape[1] < least or not wav.is_floating_point():
        raise InputError(
            f"a bridge needs {name}, floats in [-1, 1], not {list(wav.shape)} of {wav.dtype}"
        )
    if not wav.isfinite().all():
        raise InputError(f"a bridge needs {name}, floats in [-1, 1]: some are NaN or infinite")
    return wav.float().cpu()


def validate_blocks(blocks: Iterable[Tensor], sample_rate: int) -> Iterator[Tensor]:
    """Validate the blocks of a stream and skip empty ones.

    Args:
        blocks: [C, n].
        sample_rate: in Hz.

    Yields:
        [C, n], n > 0, float32 on the CPU.

    Raises:
        InputError: see `validate_waveform`; or the number of channels changes.
    """
    channels = None
    for block in blocks:
        block = validate_waveform(block, sample_rate, "a stream's blocks [C, n]", least=0)
        if channels not in (None, len(block)):
            raise InputError(
                "a stream's blocks [C, n] must have the same C, "
                f"not {channels} and then {len(block)}"
            )
        channels = len(block)
        if block.shape[1]:
            yield block


class SoundBuffer:
    """Hold the start of a stream until it contains enough sound to estimate level and tuning.

    Args:
        blocks: [C, n] of the stream, high-passed by `audible`.
        sample_rate: in Hz.
        seconds: sound to hold, counted from the first peak above `FIRST_SOUND`.

    Attributes:
        held: the blocks from the first sound on, once `silence` is exhausted; all blocks of a
            shorter stream.
    """

    def __init__(self, blocks: Iterable[Tensor], sample_rate: int, seconds: float):
        self.held: list[Tensor] = []
        self._blocks = blocks
        self._sample_rate = sample_rate
        self._seconds = seconds

    def silence(self) -> Iterator[Tensor]:
        """Yield zeros [C, n] in place of the samples before the first sound, then fill `held`."""
        length = 0
        settled = False
        for block in self._blocks:
            if not self.held:
                edge = 0 if settled else min(round(EDGE * self._sample_rate), block.shape[-1] // 2)
                settled = True
                first = _first_loud(block, edge)
                if first > 0:
                    yield torch.zeros_like(block[:, :first])
                block = block[:, first:]
                if not block.shape[-1]:
                    continue
            self.held.append(block)
            length += block.shape[-1]
            if length >= self._seconds * self._sample_rate:
                break


def _first_loud(block: Tensor, edge: int) -> int:
    """Return the samples of a block [C, n] before the first sound, the `edge` ignored."""
    loud = (block[:, edge:].abs() > FIRST_SOUND).any(0)
    if not loud.any():
        return block.shape[-1]
    first = int(loud.int().argmax())
    return min(first + edge, block.shape[-1]) if first > 0 else 0


def after_first_second(
    blocks: Iterable[Tensor], sample_rate: int, threshold: float, decide: Callable[[Tensor], None]
) -> Iterator[Tensor]:
    """Pass blocks through, and call `decide` once before the blocks of the first second of sound.

    Args:
        blocks: [C, n].
        sample_rate: in Hz.
        threshold: peak from which a sample counts as sound.
        decide: callback with the first second of sound [C, n], shorter if the stream ends earlier.

    Yields:
        The blocks, unchanged.
    """
    blocks = iter(blocks)
    held: list[Tensor] = []
    missing = sample_rate
    for block in blocks:
        if not held:
            loud = (block.abs() >= threshold).any(0)
            if not loud.any():
                yield block
                continue
            missing += int(loud.int().argmax())
        held.append(block)
        missing -= block.shape[-1]
        if missing <= 0:
            break
    if held:
        sound = torch.cat(held, -1)
        begin = int((sound.abs() >= threshold).any(0).int().argmax())
        decide(sound[:, begin : begin + sample_rate])
    yield from held
    yield from blocks
