"""Sound as a bridge is given it: checked, and of a stream as much held as its level and tuning are known by."""

from collections.abc import Callable, Generator, Iterable, Iterator
from numbers import Integral

import torch
from torch import Tensor

from audio_diffusion_pytorch.errors import InputError

FIRST_SOUND = (
    1e-2  # peak, -40 dB: what is fainter may be a room's noise, which is no sound to set a level by
)
EDGE = 0.08  # s at the beginning of a stream, where a rumble is not quite gone
AUDIBLE = 0.1  # peak beside a recording's level from which there is sound to find a register by


def validate_waveform(
    wav: Tensor, sample_rate: int, name: str = "wav [C, T] with C, T > 0", least: int = 1
) -> Tensor:
    """wav [C, T], T >= least, as float32 on the CPU.

    Args:
        sample_rate: of wav, in Hz.
        name: what it is called in errors.

    Raises:
        InputError: it has another shape or no channel, no floating-point or not finite samples, or the rate is none.
    """
    if not isinstance(sample_rate, Integral) or sample_rate < 1:
        raise InputError(f"sample_rate={sample_rate} must be a positive whole number, in Hz")
    if wav.dim() != 2 or not len(wav) or wav.shape[1] < least or not wav.is_floating_point():
        raise InputError(
            f"a bridge takes {name}, floats in [-1, 1], not {list(wav.shape)} of {wav.dtype}"
        )
    if not wav.isfinite().all():
        raise InputError(f"a bridge takes {name}, floats in [-1, 1]: some are NaN or infinite")
    return wav.float().cpu()


def validate_blocks(blocks: Iterable[Tensor], sample_rate: int) -> Iterator[Tensor]:
    """Blocks [C, n] of a stream with n > 0, each `checked`; empty ones are left out.

    Raises:
        InputError: as `checked`, or a block has another C than the first.
    """
    channels = None
    for block in blocks:
        block = validate_waveform(block, sample_rate, "a stream's blocks [C, n]", least=0)
        if channels not in (None, len(block)):
            raise InputError(
                f"a stream's blocks [C, n] have one C, not {channels} and then {len(block)}"
            )
        channels = len(block)
        if block.shape[1]:
            yield block


def buffer_until_sound(
    blocks: Iterable[Tensor], sample_rate: int, seconds: float
) -> Generator[Tensor, None, list[Tensor]]:
    """Blocks [C, n] without what lies below hearing -> silence, block by block, up to what passes `FIRST_SOUND`.

    Returns:
        The blocks from there on that hold as many seconds of it, or all that there are.
    """
    held, length, begun = [], 0, False
    for block in blocks:
        if not held:
            edge = 0 if begun else min(round(EDGE * sample_rate), block.shape[-1] // 2)
            begun = True
            loud = (block[:, edge:].abs() > FIRST_SOUND).any(0)
            first = int(loud.int().argmax()) if loud.any() else block.shape[-1]
            if first > 0:
                first = min(first + edge, block.shape[-1])
                yield torch.zeros_like(block[:, :first])
            block = block[:, first:]
            if not block.shape[-1]:
                continue
        held.append(block)
        length += block.shape[-1]
        if length >= seconds * sample_rate:
            break
    return held


def after_first_second(
    blocks: Iterable[Tensor], sample_rate: int, threshold: float, decide: Callable[[Tensor], None]
) -> Iterator[Tensor]:
    """Blocks [C, n], the same; `decide` is called once, with the first second of sound, before its blocks come.

    Args:
        threshold: peak from which there is sound.
        decide: called with that second [C, n]; at the end of a shorter stream with what there is.
    """
    blocks, held, missing = iter(blocks), [], sample_rate
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
