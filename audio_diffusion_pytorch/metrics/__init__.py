"""Metrics of melody, notes and spectra; names load lazily."""

from importlib import import_module

_EXPORTS = {
    "PitchMetrics": "melody",
    "dtw_distance": "melody",
    "jaccard_distance": "melody",
    "melody_distances": "melody",
    "pitch_metrics": "melody",
    "log_mel_distance": "spectral",
    "note_scores": "transcription",
    "pitch_accuracy": "transcription",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
