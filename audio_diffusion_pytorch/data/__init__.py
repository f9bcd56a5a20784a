"""Recordings of instruments, and training batches of them.

Names load lazily.
"""

from importlib import import_module

_EXPORTS = {
    "RecordingAugment": "augment",
    "Datamodule": "datamodule",
    "InstrumentDataset": "dataset",
    "PitchShift": "pitch_shift",
    "make_pitch_shift": "pitch_shift",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
