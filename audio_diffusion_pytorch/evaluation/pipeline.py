"""The stages of an evaluation: set up, score, aggregate, report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation import results
from audio_diffusion_pytorch.evaluation.aggregate import Group, group_clips, summarise
from audio_diffusion_pytorch.evaluation.embeddings import embed_outputs, embed_targets
from audio_diffusion_pytorch.evaluation.html_report import write_report
from audio_diffusion_pytorch.evaluation.runner import EvaluationRunner
from audio_diffusion_pytorch.evaluation.scoring import score_by_engine
from audio_diffusion_pytorch.evaluation.settings import EvaluationSettings
from audio_diffusion_pytorch.evaluation.setup import EvaluationSetup, set_up
from audio_diffusion_pytorch.evaluation.tasks import ScoredClip
from audio_diffusion_pytorch.metrics.frechet import Embedder, Moments
from audio_diffusion_pytorch.utils.threads import set_threads


def run_evaluation(
    settings: EvaluationSettings, classifier: Any, embedder: Embedder, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Run an evaluation; a repeated run resumes.

    Args:
        settings: settings of the evaluation.
        classifier: classifier of the timbre scores, or None.
        embedder: embeds sounds for the Frechet distance.
        config: the command's configuration, for results.json and the report.

    Returns:
        The content of results.json.

    Raises:
        InputError: nothing could be scored, or a file cannot be written.
        KeyboardInterrupt: Ctrl-C; finished scores are stored.
    """
    setup = set_up(settings, classifier)
    if classifier is None:
        setup.problems.add("no classifier: timbre is not scored")
    runner = EvaluationRunner(setup, classifier)
    runner.store.adopt_earlier_layout()
    set_threads()
    clips = score(setup, runner, classifier)
    groups, real = aggregate(setup, runner, clips, embedder)
    content = results.collect(groups, real, embedder.name, setup.problems, config)
    report(runner, groups, content, settings.output)
    return content


def score(setup: EvaluationSetup, runner: EvaluationRunner, classifier: Any) -> list[ScoredClip]:
    """Score all tasks.

    Args:
        setup: tasks to score.
        runner: scores the tasks.
        classifier: classifier of the timbre scores, or None.

    Returns:
        The scored clips.

    Raises:
        InputError: no task of a system other than a reference point could be scored, or see
            `Engine.run`.
        KeyboardInterrupt: Ctrl-C; finished scores are stored.
    """
    tasks = setup.tasks
    scored = runner.count_scored(tasks)
    print(f"{scored} of {len(tasks)} scores found in {setup.settings.output}")
    with tqdm(desc="scoring", unit="clip", total=len(tasks), initial=scored) as bar:
        try:
            if not setup.settings.engine.is_this_process:
                tasks = score_by_engine(runner, classifier, bar.update)
            clips = list(runner.run(tasks, bar.update))  # reads what is scored
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "finished scores are stored; run the same command again to resume"
            ) from None
    if all(clip.task.system.reference for clip in clips):
        scope = "nothing but reference points" if clips else "nothing"
        raise InputError(f"{scope} could be scored: {setup.problems.short()}")
    return clips


def aggregate(
    setup: EvaluationSetup,
    runner: EvaluationRunner,
    clips: Sequence[ScoredClip],
    embedder: Embedder,
) -> tuple[list[Group], dict[str, list[Moments]]]:
    """Embed all outputs, and average the scores of each pair and system.

    Args:
        setup: recordings of the targets.
        runner: returns the outputs.
        clips: scored clips.
        embedder: embeds sounds for the Frechet distance.

    Returns:
        The groups with their figures, and the moments of real clips of each target.
    """
    targets = sorted({clip.task.pair[1] for clip in clips})
    with tqdm(desc="embedding", unit="step", total=len(clips) + len(targets)) as bar:
        moments = embed_outputs(runner, clips, embedder, bar.update)
        real = embed_targets(setup, targets, embedder, bar.update)
    groups = group_clips(clips, moments)
    with tqdm(desc="bootstrap", unit="group", total=len(groups)) as bar:
        summarise(groups, real, bar.update)
    return groups, real


def report(
    runner: EvaluationRunner, groups: Sequence[Group], content: Mapping[str, Any], folder: Path
) -> None:
    """Write and print the results, and give the sounds readable names.

    Args:
        runner: returns the sounds of the report.
        groups: groups with their figures.
        content: content of results.json.
        folder: folder of the results.

    Raises:
        InputError: a file cannot be written.
    """
    results.write(groups, content, folder)
    tasks = [clip.task for group in groups for clip in group.clips]
    for task in tasks:
        runner.store.publish(task)
    players = content["settings"]["report_clips"]
    with tqdm(desc="report", unit="pair", total=len({group.pair for group in groups})) as bar:
        write_report(runner, groups, content, folder / "report.html", players, bar.update)
    print(results.as_text(groups, content))
    for name in ("report.html", "results.md", "results.tex", "results.csv", "results.json"):
        print(f"wrote {folder / name}")
    if any(task.system.stored for task in tasks):
        print(f"sounds are in {folder / 'sounds'}")
