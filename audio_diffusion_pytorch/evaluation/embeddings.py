"""Moments of embedded sounds, the inputs of a Frechet distance."""

from collections.abc import Callable, Sequence

from torch import Tensor

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation.clips import Excerpt, real_excerpts
from audio_diffusion_pytorch.evaluation.runner import SILENCE, EvaluationRunner
from audio_diffusion_pytorch.evaluation.scores import at_level
from audio_diffusion_pytorch.evaluation.setup import EvaluationSetup
from audio_diffusion_pytorch.evaluation.systems import read_excerpt
from audio_diffusion_pytorch.evaluation.tasks import ScoredClip
from audio_diffusion_pytorch.metrics.frechet import Embedder, Moments


def embed_outputs(
    runner: EvaluationRunner,
    clips: Sequence[ScoredClip],
    embedder: Embedder,
    progress: Callable[[], None],
) -> list[Moments]:
    """Embed the output of every clip; equal outputs are embedded once.

    Args:
        runner: returns the outputs.
        clips: scored clips.
        embedder: embeds sounds.
        progress: called after each clip.

    Returns:
        The moments of each clip.
    """
    known: dict[str, Moments] = {}
    for clip in clips:
        if clip.task.key not in known:
            known[clip.task.key] = embed(runner.output(clip.task), runner.sample_rate, embedder)
        progress()
    return [known[clip.task.key] for clip in clips]


def embed_targets(
    setup: EvaluationSetup,
    targets: Sequence[str],
    embedder: Embedder,
    progress: Callable[[], None],
) -> dict[str, list[Moments]]:
    """Embed real clips of each target, twice as many as are scored.

    Each half is as large as a pair's set.

    Args:
        setup: recordings and settings; silent and damaged clips are added to its problems.
        targets: names of instruments.
        embedder: embeds sounds.
        progress: called after each target.

    Returns:
        The moments of the real clips of each target.
    """
    settings = setup.settings
    real: dict[str, list[Moments]] = {}
    for target in targets:
        real[target] = []
        excerpts = real_excerpts(setup.recordings, target, 2 * settings.clips, settings.seconds)
        for excerpt in excerpts:
            try:
                real[target].append(embed_real(excerpt, setup.keys.sample_rate, embedder))
            except InputError as error:
                setup.problems.add(str(error), excerpt.recording.path)
        progress()
    return real


def embed_real(excerpt: Excerpt, sample_rate: int, embedder: Embedder) -> Moments:
    """Embed a real clip.

    Args:
        excerpt: excerpt of a real recording.
        sample_rate: rate of the evaluation in Hz.
        embedder: embeds sounds.

    Returns:
        The moments of the clip.

    Raises:
        InputError: the file is damaged, or the clip is silent.
    """
    wav = read_excerpt(excerpt.recording.path, excerpt, sample_rate)[0]
    if wav.abs().max() < SILENCE:
        raise InputError(
            f"{excerpt.recording.path}: silence from {excerpt.start:g} s: not used as a real clip"
        )
    return embed(wav, sample_rate, embedder)


def embed(wav: Tensor, sample_rate: int, embedder: Embedder) -> Moments:
    """Embed a sound at the level at which sounds are compared.

    Args:
        wav: sound [T].
        sample_rate: rate of `wav` in Hz.
        embedder: embeds sounds.

    Returns:
        The moments of the sound's frames.
    """
    wav = audio.resample(at_level(wav[None], sample_rate), sample_rate, embedder.sample_rate)
    return Moments.of(embedder.embed(wav)[0])
