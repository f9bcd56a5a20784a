"""Open a page in the browser that plays recordings on other instruments.

python app.py
python app.py port=8000 models=FOLDER
"""

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from audio_diffusion_pytorch.app.settings import AppSettings, check_gradio
from audio_diffusion_pytorch.cli import run_command, start
from audio_diffusion_pytorch.paths import CONFIGS

USAGE_ERRORS = (HydraException, OmegaConfBaseException, OSError)
PATH_KEYS = ("auth", "models", "logs", "root_path")


def app(cfg: DictConfig) -> None:
    """Check the settings, and serve the page.

    Args:
        cfg: configuration, as in `configs/app.yaml`.

    Raises:
        InputError: a setting is wrong, or Gradio is missing.
        Interrupted: SIGTERM.
    """
    values = OmegaConf.to_container(cfg)
    settings = AppSettings.from_arguments(values)
    check_gradio()
    from audio_diffusion_pytorch.app.server import serve

    serve(settings)


@hydra.main(config_path=str(CONFIGS), config_name="app", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run the command with a configuration from Hydra."""
    run_command(lambda: app(cfg), USAGE_ERRORS)


def cli() -> None:
    """Run the command line as typed."""
    start(main, PATH_KEYS, USAGE_ERRORS)


if __name__ == "__main__":  # `python -m`, as the installed command runs it
    from audio_diffusion_pytorch.commands.app import cli

    cli()
