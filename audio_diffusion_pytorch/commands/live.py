"""Play live: from a microphone to a loudspeaker, with a constant delay.

python live.py source=flute target=violin
python live.py source=flute target=violin input=FILE output=FILE
"""

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from audio_diffusion_pytorch.cli import ending_on_terminate, run_command, start
from audio_diffusion_pytorch.live.settings import LiveSettings
from audio_diffusion_pytorch.paths import CONFIGS
from audio_diffusion_pytorch.utils.registry import import_plugins
from audio_diffusion_pytorch.utils.settings import check_switch

USAGE_ERRORS = (HydraException, OmegaConfBaseException, OSError)
PATH_KEYS = ("source", "target", "input", "output", "record_input", "record_output")


def live(cfg: DictConfig) -> None:
    """Check the settings, and play until the input ends or Ctrl-C.

    Args:
        cfg: configuration, as in `configs/live.yaml`.

    Raises:
        InputError: a setting is wrong, there is no audio device, or it disappeared.
        Interrupted: SIGTERM; recordings are complete.
    """
    values = OmegaConf.to_container(cfg)
    check_switch("devices", values["devices"])
    if values["devices"]:
        from audio_diffusion_pytorch.live.devices import describe_devices

        print(describe_devices())
        return
    settings = LiveSettings.from_arguments(values)
    settings.check_files()
    import_plugins(cfg.plugins)
    from audio_diffusion_pytorch.live.session import LiveSession

    with ending_on_terminate():
        print(LiveSession(settings).run())


@hydra.main(config_path=str(CONFIGS), config_name="live", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run the command with a configuration from Hydra."""
    run_command(lambda: live(cfg), USAGE_ERRORS)


def cli() -> None:
    """Run the command line as typed."""
    start(main, PATH_KEYS, USAGE_ERRORS)


if __name__ == "__main__":  # `python -m`, as the installed command runs it
    from audio_diffusion_pytorch.commands.live import cli

    cli()
