"""Basic Pitch (Bittner et al., ICASSP 2022): polyphonic pitch posteriors, in PyTorch."""

from .model import SAMPLE_RATE, BasicPitch, resample

__all__ = ["SAMPLE_RATE", "BasicPitch", "resample"]
