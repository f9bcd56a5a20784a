"""Pitch tracks, notes, tuning, transposition by octaves.

Names load lazily.
"""

from importlib import import_module

_EXPORTS = {
    "Melody": "tracker",
    "Mode": "tracker",
    "PAPER_RATE": "tracker",
    "PITCH_CLASSES": "tracker",
    "VOICED": "tracker",
    "check_clips": "tracker",
    "fold_octaves": "tracker",
    "frame_seconds": "tracker",
    "median_over_time": "tracker",
    "melody_of": "tracker",
    "posteriors": "tracker",
    "track_melody": "tracker",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
