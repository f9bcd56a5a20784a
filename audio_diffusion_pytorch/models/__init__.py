"""Networks, and their files.

Names load lazily.
"""

from importlib import import_module

_EXPORTS = {
    "InstrumentClassifier": "classifier",
    "load_classifier": "classifier",
    "InstrumentModel": "instrument",
    "InstrumentSpec": "instrument",
    "load_instrument": "loading",
    "shipped_instruments": "loading",
    "UNet1d": "unet",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
