"""Diffusion: denoiser, schedules, solvers, coupling.

Names load lazily.
"""

from importlib import import_module

_EXPORTS = {
    "ChunkCoupling": "coupling",
    "Denoiser": "denoiser",
    "KDistribution": "denoiser",
    "LogNormalDistribution": "denoiser",
    "UniformDistribution": "denoiser",
    "SOLVERS": "sampling",
    "karras_schedule": "sampling",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
