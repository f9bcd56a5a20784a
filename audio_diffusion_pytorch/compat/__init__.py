"""Compatibility with the original system: its names, and the keys of its configurations.

Names load lazily.
"""

from importlib import import_module

_EXPORTS = {
    "ADPM2Sampler": "samplers",
    "AEulerSampler": "samplers",
    "AudioDiffusionModel": "api",
    "KDistribution": "api",
    "KarrasSampler": "samplers",
    "KarrasSamplerReverse": "samplers",
    "KarrasSchedule": "samplers",
    "LinearSchedule": "samplers",
    "LogNormalDistribution": "api",
    "NormalizedEncodec": "api",
    "PitchTracker": "api",
    "UniformDistribution": "api",
    "play_audio": "api",
    "plot_spec": "api",
    "z_denorm": "api",
    "z_norm": "api",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
