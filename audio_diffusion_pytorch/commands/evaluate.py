"""Score transfers: is the melody kept, is the timbre the target's, how far is the sound from real recordings.

python evaluate.py pairs=[flute-violin,violin-flute] data=FOLDER
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from audio_diffusion_pytorch.cli import run_command, start
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.instruments import MAX_OCTAVES
from audio_diffusion_pytorch.paths import CONFIGS
from audio_diffusion_pytorch.utils.devices import choose_device
from audio_diffusion_pytorch.utils.settings import (
    check_choice,
    check_number,
    check_single,
    check_switch,
    check_text,
    wrong,
)

USAGE_ERRORS = (HydraException, OmegaConfBaseException, OSError)
PATH_KEYS = (
    "data",
    "output",
    "outputs",
    "models",
    "classifier",
    "embedder",
    "codec.repository",
    "codec.weights",
)
REFERENCES = ("identity", "codec", "warm", "truth")


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Plan, make and score, summarise, report; returns what results.json holds.

    Raises:
        InputError: something given cannot be used, or nothing could be scored.
    """
    _check_arguments(cfg)
    from tqdm import tqdm

    from audio_diffusion_pytorch.codecs.loading import load_codec
    from audio_diffusion_pytorch.evaluation import aggregate as summary
    from audio_diffusion_pytorch.evaluation import results
    from audio_diffusion_pytorch.evaluation.embeddings import embed_rows
    from audio_diffusion_pytorch.evaluation.html_report import write_report
    from audio_diffusion_pytorch.evaluation.setup import EvaluationSetup
    from audio_diffusion_pytorch.metrics.frechet import codec_embedder
    from audio_diffusion_pytorch.utils.threads import set_threads

    settings, classifier = _settings(cfg), _classifier(cfg)
    embedder = codec_embedder(load_codec(cfg.embedder, **settings.codec), settings.device)
    plan = EvaluationSetup(settings, classifier)
    if classifier is None:
        plan.problems.add("no classifier: timbre is not scored")
    evaluation, items = plan.evaluation, plan.items
    set_threads()
    found = evaluation.found(items)
    print(f"{found} of {len(items)} scores found in {cfg.output}")
    with tqdm(desc="scoring", unit="clip", total=len(items), initial=found) as bar:
        try:
            rows = list(evaluation.run(items, bar.update))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "what is scored is kept; run the same command again to go on"
            ) from None
    if all(row.item.system.reference for row in rows):
        what = "nothing but reference points" if rows else "nothing"
        raise InputError(f"{what} could be scored: {plan.problems.short()}")
    targets = sorted({row.item.pair[1] for row in rows})
    with tqdm(desc="embedding", unit="step", total=len(rows) + len(targets)) as bar:
        moments = embed_rows(evaluation, rows, embedder, bar.update)
        real = plan.real_moments(targets, embedder, bar.update)
    groups = summary.group_rows(rows, moments)
    with tqdm(desc="bootstrap", unit="group", total=len(groups)) as bar:
        summary.summarise(groups, real, bar.update)
    content = results.collect(
        groups, real, embedder.name, plan.problems, OmegaConf.to_container(cfg)
    )
    results.write(groups, content, settings.output)
    for row in rows:
        evaluation.publish(row.item)
    pairs = len({group.pair for group in groups})
    with tqdm(desc="report", unit="pair", total=pairs) as bar:
        write_report(
            evaluation,
            groups,
            content,
            settings.output / "report.html",
            cfg.report_clips,
            bar.update,
        )
    print(results.as_text(groups, content))
    for name in ("report.html", "results.md", "results.tex", "results.csv", "results.json"):
        print(f"wrote {settings.output / name}")
    if any(row.item.system.stored for row in rows):
        print(f"sounds are in {settings.output / 'sounds'}")
    return content


def _settings(cfg: DictConfig):
    from audio_diffusion_pytorch.evaluation.setup import Settings
    from audio_diffusion_pytorch.paths import shipped_clips

    values = OmegaConf.to_container(cfg, resolve=True)
    name = str(values["system"] or ("outputs" if values["outputs"] else "bridge"))
    compared = {str(other): models for other, models in (values["compare"] or {}).items()}
    _check_names(name, compared)
    kept = (
        "pairs",
        "quality",
        "num_steps",
        "solver",
        "handoff",
        "transpose",
        "cycle_clips",
        "batch_size",
    )
    return Settings(
        data=Path(values["data"] or shipped_clips()),
        output=Path(values["output"]),
        outputs=None if values["outputs"] is None else Path(values["outputs"]),
        system=name,
        bridges={} if values["outputs"] else {name: values["models"], **compared},
        references=_listed(values["references"]),
        clips=values["clips"] or (2 if values["data"] is None else 40),
        sigmas=[]
        if values["sigma"] is None
        else [float(sigma) for sigma in _listed(values["sigma"])],
        seconds=float(values["seconds"]),
        seed=values["seed"],
        device=choose_device(values["device"]),
        codec={key: value for key, value in values["codec"].items() if value is not None},
        **{key: values[key] for key in kept},
    )


def _check_names(name: str, compared: Iterable[str]) -> None:
    """Systems of one name would be one in the tables."""
    from audio_diffusion_pytorch.evaluation.systems import CODEC, IDENTITY, MOVED, TRUTH, WARM

    taken = {IDENTITY, MOVED, CODEC, WARM, TRUTH}
    if name in taken:
        raise InputError(f"system={name} is the name of a reference point: choose another one")
    if twice := taken.union([name]).intersection(compared):
        raise InputError(
            f"compare: {min(twice)} is the name of another system in the tables: choose another one, or name the "
            "first system with system=NAME"
        )


def _listed(value: Any) -> list:
    return value if isinstance(value, list) else [value]


def _classifier(cfg: DictConfig):
    """The one given, the one that ships, or None."""
    from audio_diffusion_pytorch.models.classifier import load_classifier
    from audio_diffusion_pytorch.paths import ASSETS

    if cfg.classifier is None and not (ASSETS / "classifier.safetensors").is_file():
        return None
    return load_classifier(cfg.classifier, choose_device(cfg.device))


def _check_arguments(cfg: DictConfig) -> None:
    """Check every setting before heavy imports."""
    values = OmegaConf.to_container(cfg, resolve=True)
    _check_numbers(values)
    check_switch("targets", values["targets"])
    _check_texts(values)
    _check_models(values)
    for name in _listed(values["references"]):
        check_choice("references", name, REFERENCES)
    finished = values["outputs"] is not None
    if finished and (values["models"] is not None or values["compare"]):
        raise InputError(
            "outputs= scores finished files: leave out models= and compare=, or run twice"
        )
    _check_folders(values)


def _check_numbers(values: Mapping[str, Any]) -> None:
    for key in ("num_steps", "clips"):
        check_number(key, values[key], whole=True, least=1, allowed=(None,))
    check_number("batch_size", values["batch_size"], whole=True, least=1)
    check_number("seconds", values["seconds"], above=0)
    for key in ("cycle_clips", "report_clips", "seed"):
        check_number(key, values[key], whole=True, least=0)
    limits = {"least": -MAX_OCTAVES, "most": MAX_OCTAVES}
    check_number("transpose", values["transpose"], whole=True, **limits, allowed=("auto",))
    sigmas = [] if values["sigma"] is None else _listed(values["sigma"])
    for sigma in sigmas:
        check_number("sigma", sigma, above=0)
    if len({f"{sigma:g}" for sigma in sigmas}) < len(sigmas):
        raise InputError(
            f"sigma={sigmas}: the tables show six digits, in which two levels are equal: remove one"
        )


def _check_texts(values: Mapping[str, Any]) -> None:
    for key in ("output", "embedder", "quality", "handoff"):
        check_text(key, values[key])
    for key in ("data", "outputs", "classifier", "solver"):
        check_text(key, values[key], (None,))
    check_single("system", values["system"])


def _check_models(values: Mapping[str, Any]) -> None:
    compared = values["compare"]
    if not isinstance(compared, dict | None):
        raise wrong("compare", compared, "{NAME: models, ...}", (None,))
    if not isinstance(values["codec"], dict):
        raise wrong("codec", values["codec"], "{weights: FILE} or {repository: NAME}")
    named = {f"compare.{name}": models for name, models in (compared or {}).items()}
    for key, models in {"models": values["models"], **named}.items():
        if isinstance(models, dict):
            for instrument, model in models.items():
                check_text(f"{key}.{instrument}", model)
        else:
            check_text(key, models, (None,))


def _check_folders(values: Mapping[str, Any]) -> None:
    for key in ("data", "outputs"):
        if values[key] is not None and not Path(values[key]).is_dir():
            raise wrong(key, values[key], "a folder that exists")
    output = Path(values["output"])
    folder = next(parent for parent in (output, *output.absolute().parents) if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError(f"cannot write to output={output}: {folder} is not a writable folder")


@hydra.main(config_path=str(CONFIGS), config_name="evaluate", version_base="1.3")
def main(cfg: DictConfig) -> None:
    run_command(lambda: evaluate(cfg), USAGE_ERRORS)


def cli() -> None:
    """Run the command line as typed."""
    start(main, PATH_KEYS, USAGE_ERRORS)


if __name__ == "__main__":  # `python -m`, as the installed command runs it
    from audio_diffusion_pytorch.commands.evaluate import cli

    cli()
