"""Latent diffusion bridges for musical timbre transfer.

Names load lazily: ``import audio_diffusion_pytorch`` imports no torch, so that ``--help`` of a command is quick.
"""

import getpass
import os
from importlib import import_module

__version__ = "0.1.0"

_EXPORTS = {
    "Bridge": "bridge",
    "ADPM2Sampler": "compat",
    "AEulerSampler": "compat",
    "AudioDiffusionModel": "compat",
    "KarrasSampler": "compat",
    "KarrasSamplerReverse": "compat",
    "KarrasSchedule": "compat",
    "LinearSchedule": "compat",
    "NormalizedEncodec": "compat",
    "PitchTracker": "compat",
    "play_audio": "compat",
    "plot_spec": "compat",
    "z_denorm": "compat",
    "z_norm": "compat",
    "InstrumentClassifier": "classifier",
    "load_classifier": "classifier",
    "Codec": "codec",
    "EncodecCodec": "codec",
    "MelCodec": "codec",
    "load_codec": "codec",
    "Denoiser": "denoiser",
    "KDistribution": "denoiser",
    "LogNormalDistribution": "denoiser",
    "UniformDistribution": "denoiser",
    "InputError": "errors",
    "InstrumentModel": "instrument",
    "load_instrument": "instrument",
    "pitch_metrics": "metrics",
    "UNet1d": "unet",
}
__all__ = sorted(_EXPORTS)


def _name_user() -> None:
    """Name a user who has no entry in the system's list, as in a container: torch asks for the name before training."""
    try:
        getpass.getuser()
    except (ImportError, KeyError, OSError):
        os.environ["USER"] = f"uid-{os.getuid()}" if hasattr(os, "getuid") else "user"


_name_user()


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
