"""Score transfers: is the melody kept, is the timbre the target's, how far is the sound from real recordings.

python evaluate.py pairs=[flute-violin,violin-flute] data=FOLDER
"""

import os
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from audio_diffusion_pytorch.cli import choose_device, run_command, start
from audio_diffusion_pytorch.errors import InputError

ROOT = Path(__file__).resolve().parent
USAGE_ERRORS = (HydraException, OmegaConfBaseException, OSError)
PATH_KEYS = ("data", "output", "outputs", "models", "classifier", "embedder", "codec.repository", "codec.weights")
REFERENCES = ("identity", "codec", "warm", "truth")


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Plan, make and score, summarise, report; returns what results.json holds.

    Raises:
        InputError: something given cannot be used, or nothing could be scored.
    """
    _check_arguments(cfg)
    from tqdm import tqdm

    from audio_diffusion_pytorch import results, summary
    from audio_diffusion_pytorch.codec import load_codec
    from audio_diffusion_pytorch.evaluation import embed_rows
    from audio_diffusion_pytorch.evaluation_report import write_report
    from audio_diffusion_pytorch.frechet import codec_embedder
    from audio_diffusion_pytorch.plan import Plan

    settings, classifier = _settings(cfg), _classifier(cfg)
    embedder = codec_embedder(load_codec(cfg.embedder, **settings.codec), settings.device)
    plan = Plan(settings, classifier)
    if classifier is None:
        plan.problems.add("no classifier: timbre is not scored")
    evaluation, items = plan.evaluation, plan.items
    found = evaluation.found(items)
    print(f"{found} of {len(items)} scores found in {cfg.output}")
    with tqdm(desc="scoring", unit="clip", total=len(items), initial=found) as bar:
        try:
            rows = list(evaluation.run(items, bar.update))
        except KeyboardInterrupt:
            raise KeyboardInterrupt("what is scored is kept; run the same command again to go on") from None
    if not rows:
        raise InputError("nothing could be scored: " + "; ".join(plan.problems.lines[-4:]))
    targets = sorted({row.item.pair[1] for row in rows})
    with tqdm(desc="embedding", unit="step", total=len(rows) + len(targets)) as bar:
        moments = embed_rows(evaluation, rows, embedder, bar.update)
        real = plan.real_moments(targets, embedder, bar.update)
    groups = summary.group_rows(rows, moments)
    with tqdm(desc="bootstrap", unit="group", total=len(groups)) as bar:
        summary.summarise(groups, real, bar.update)
    content = results.collect(groups, real, embedder.name, plan.problems, OmegaConf.to_container(cfg))
    results.write(content, settings.output)
    pairs = len({group.pair for group in groups})
    with tqdm(desc="report", unit="pair", total=pairs) as bar:
        write_report(evaluation, groups, content, settings.output / "report.html", cfg.report_clips, bar.update)
    print(results.as_text(groups, content))
    for name in ("report.html", "results.json", "results.csv"):
        print(f"wrote {settings.output / name}")
    return content


def _settings(cfg: DictConfig):
    from audio_diffusion_pytorch.plan import Settings, shipped_clips

    values = OmegaConf.to_container(cfg, resolve=True)
    sigma, name = values["sigma"], values["system"]
    bridges = {} if values["outputs"] else {name or "bridge": values["models"], **(values["compare"] or {})}
    kept = ("pairs", "references", "quality", "num_steps", "solver", "handoff", "transpose")
    kept += ("cycle_clips", "batch_size")
    return Settings(
        data=Path(values["data"] or shipped_clips()),
        output=Path(values["output"]),
        outputs=None if values["outputs"] is None else Path(values["outputs"]),
        system=name or "outputs",
        bridges=bridges,
        clips=values["clips"] or (2 if values["data"] is None else 40),
        sigmas=[] if sigma is None else [float(s) for s in (sigma if isinstance(sigma, list) else [sigma])],
        seconds=float(values["seconds"]),
        seed=values["seed"],
        device=choose_device(values["device"]),
        codec={key: value for key, value in values["codec"].items() if value is not None},
        **{key: values[key] for key in kept},
    )


def _classifier(cfg: DictConfig):
    """The one given, the one that ships, or None."""
    from audio_diffusion_pytorch.classifier import load_classifier
    from audio_diffusion_pytorch.codec import ASSETS

    if cfg.classifier is None and not (ASSETS / "classifier.safetensors").is_file():
        return None
    return load_classifier(cfg.classifier, choose_device(cfg.device))


def _check_arguments(cfg: DictConfig) -> None:
    """What can be told before anything heavy is imported or computed."""
    for key, whole in (("num_steps", True), ("clips", True), ("batch_size", True), ("seconds", False)):
        if cfg[key] is not None or key not in ("num_steps", "clips"):
            _check_number(key, cfg[key], whole)
    sigmas = [] if cfg.sigma is None else cfg.sigma if OmegaConf.is_list(cfg.sigma) else [cfg.sigma]
    for sigma in sigmas:
        _check_number("sigma", sigma, False)
    for key in ("cycle_clips", "report_clips", "seed"):
        _check_number(key, cfg[key], True, least=-1)
    if cfg.transpose != "auto" and (isinstance(cfg.transpose, bool) or not isinstance(cfg.transpose, int)):
        raise InputError(f"transpose={cfg.transpose} must be auto, or a whole number of octaves")
    if unknown := [name for name in cfg.references if name not in REFERENCES]:
        raise InputError(f"references: no {', '.join(map(str, unknown))}; there are {', '.join(REFERENCES)}")
    if cfg.outputs is not None and (cfg.models is not None or cfg.compare):
        raise InputError("outputs= scores finished files: leave out models= and compare=, or run twice")
    for key in ("data", "outputs"):
        if cfg[key] is not None and not Path(cfg[key]).is_dir():
            raise InputError(f"{key}={cfg[key]} is no folder")
    output = Path(cfg.output)
    folder = next(parent for parent in (output, *output.absolute().parents) if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError(f"cannot write to output={output}: {folder} is no folder that can be written to")


def _check_number(key: str, value: Any, whole: bool, least: float = 0) -> None:
    good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not (good and least < value < float("inf")):
        raise InputError(f"{key}={value} must be a {'whole ' if whole else ''}number above {least}")


@hydra.main(config_path=str(ROOT / "configs"), config_name="evaluate", version_base="1.3")
def main(cfg: DictConfig) -> None:
    run_command(lambda: evaluate(cfg), USAGE_ERRORS)


if __name__ == "__main__":
    start(main, PATH_KEYS, USAGE_ERRORS)
