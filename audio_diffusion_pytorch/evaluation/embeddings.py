"""Moments of embedded sounds, from which Frechet distances are taken."""

from collections.abc import Callable, Sequence

from torch import Tensor

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation.clips import Excerpt
from audio_diffusion_pytorch.evaluation.runner import SILENCE, EvaluationRunner, ScoredClip
from audio_diffusion_pytorch.evaluation.scores import at_level
from audio_diffusion_pytorch.evaluation.systems import read_excerpt
from audio_diffusion_pytorch.metrics.frechet import Embedder, Moments


def embed_rows(
    evaluation: EvaluationRunner,
    rows: Sequence[ScoredClip],
    embedder: Embedder,
    progress: Callable[[], None],
) -> list[Moments]:
    """The moments of every row's output, those of one sound computed once."""
    known: dict[str, Moments] = {}
    found = []
    for row in rows:
        if row.item.key not in known:
            known[row.item.key] = embed(
                evaluation.output(row.item), evaluation.sample_rate, embedder
            )
        found.append(known[row.item.key])
        progress()
    return found


def embed_real(excerpt: Excerpt, sample_rate: int, embedder: Embedder) -> Moments:
    """The moments of a real clip.

    Raises:
        InputError: it is damaged, or silence.
    """
    wav = read_excerpt(excerpt.recording.path, excerpt, sample_rate)[0]
    if wav.abs().max() < SILENCE:
        raise InputError(
            f"{excerpt.recording.path}: silence from {excerpt.start:g} s: no real clip"
        )
    return embed(wav, sample_rate, embedder)


def embed(wav: Tensor, sample_rate: int, embedder: Embedder) -> Moments:
    """wav [T] -> the moments of its frames, at the level at which sounds are compared."""
    wav = audio.resample(at_level(wav[None], sample_rate), sample_rate, embedder.sample_rate)
    return Moments.of(embedder.embed(wav)[0])
