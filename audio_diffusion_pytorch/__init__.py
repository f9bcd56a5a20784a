"""Latent diffusion bridges for musical timbre transfer.

Names load lazily: ``import audio_diffusion_pytorch`` imports no torch, so that ``--help`` of a
command is quick.
"""

import getpass
import os
from importlib import import_module

from audio_diffusion_pytorch.compat import moved

__version__ = "0.1.0"

_EXPORTS = {
    "Bridge": "bridge.bridge",
    "ADPM2Sampler": "compat.samplers",
    "AEulerSampler": "compat.samplers",
    "AudioDiffusionModel": "compat.api",
    "KarrasSampler": "compat.samplers",
    "KarrasSamplerReverse": "compat.samplers",
    "KarrasSchedule": "compat.samplers",
    "LinearSchedule": "compat.samplers",
    "NormalizedEncodec": "compat.api",
    "PitchTracker": "compat.api",
    "play_audio": "compat.api",
    "plot_spec": "compat.api",
    "z_denorm": "compat.api",
    "z_norm": "compat.api",
    "InstrumentClassifier": "models.classifier",
    "load_classifier": "models.classifier",
    "Codec": "codecs.base",
    "EncodecCodec": "codecs.encodec",
    "MelCodec": "codecs.mel",
    "load_codec": "codecs.loading",
    "Denoiser": "diffusion.denoiser",
    "KDistribution": "diffusion.denoiser",
    "LogNormalDistribution": "diffusion.denoiser",
    "UniformDistribution": "diffusion.denoiser",
    "InputError": "errors",
    "InstrumentModel": "models.instrument",
    "load_instrument": "models.loading",
    "pitch_metrics": "metrics.melody",
    "UNet1d": "models.unet",
}
__all__ = sorted(_EXPORTS)


def _name_user() -> None:
    """Name a user without an entry in the system's list, as in a container.

    torch asks for the name before training.
    """
    try:
        getpass.getuser()
    except (ImportError, KeyError, OSError):
        os.environ["USER"] = f"uid-{os.getuid()}" if hasattr(os, "getuid") else "user"


_name_user()

moved.install()


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
