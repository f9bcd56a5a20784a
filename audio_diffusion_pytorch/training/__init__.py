"""Lightning modules, trainer and run folder.

Names load lazily.
"""

from importlib import import_module

_EXPORTS = {
    "ClassifierModule": "classifier_module",
    "CodecModule": "codec_module",
    "InstrumentModule": "instrument_module",
    "make_trainer": "trainer",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
