"""Score transfers: melody against the input, timbre and sound against real target recordings.

python evaluate.py pairs=[flute-violin,violin-flute] data=FOLDER
"""

from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from audio_diffusion_pytorch.cli import run_command, start
from audio_diffusion_pytorch.evaluation.settings import check_settings, read_settings
from audio_diffusion_pytorch.paths import ASSETS, CONFIGS
from audio_diffusion_pytorch.utils.registry import import_plugins

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


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Check the settings, load classifier and embedder, and run the evaluation.

    Args:
        cfg: configuration, as in `configs/evaluate.yaml`.

    Returns:
        The content of results.json.

    Raises:
        InputError: a setting is wrong, or nothing could be scored.
    """
    values = OmegaConf.to_container(cfg, resolve=True)
    check_settings(values)
    import_plugins(cfg.plugins)

    from audio_diffusion_pytorch.codecs.loading import load_codec
    from audio_diffusion_pytorch.evaluation.pipeline import run_evaluation
    from audio_diffusion_pytorch.metrics.frechet import codec_embedder
    from audio_diffusion_pytorch.models.classifier import load_classifier
    from audio_diffusion_pytorch.utils.devices import choose_device

    settings = read_settings(values, choose_device(values["device"]))
    classifier = None
    if values["classifier"] is not None or (ASSETS / "classifier.safetensors").is_file():
        classifier = load_classifier(values["classifier"], settings.device)
    codec = load_codec(values["embedder"], **settings.codec)
    embedder = codec_embedder(codec, settings.device)
    return run_evaluation(settings, classifier, embedder, OmegaConf.to_container(cfg))


@hydra.main(config_path=str(CONFIGS), config_name="evaluate", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run the command with a configuration from Hydra."""
    run_command(lambda: evaluate(cfg), USAGE_ERRORS)


def cli() -> None:
    """Run the command line as typed."""
    start(main, PATH_KEYS, USAGE_ERRORS)


if __name__ == "__main__":  # `python -m`, as the installed command runs it
    from audio_diffusion_pytorch.commands.evaluate import cli

    cli()
