"""Crops of packed latents."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from audio_diffusion_pytorch.data.packed import Pack
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.instruments import _plain
from audio_diffusion_pytorch.models.labels import Labels

_AUDIBLE = 1e-3  # peak; training draws no crop whose frames all lie below it
Batch = Tensor | tuple[Tensor, Tensor]


class PackedCrops:
    """Crops of the recordings of a pack; a crop is named by the row of its first frame.

    Rows after the end of a recording are zeros: the lowest latent and no melody.

    Args:
        pack: the pack.
        recordings: numbers of the recordings to use.
        frames: frames L of a crop.
        labels: labels of the items; None for items without labels.

    Attributes:
        features: latents and melody of the recordings [N + 1, D + M], uint8; the last row is zero.
    """

    def __init__(self, pack: Pack, recordings: Tensor, frames: int, labels: Labels | None):
        self.frames = frames
        self.labels = labels
        self.varied = pack.varied[recordings].numpy().astype(bool)
        self.valid = pack.split[recordings].numpy().astype(bool)
        self.instrument = _label_indices(pack, recordings, labels)
        lengths = pack.frames[recordings]
        self.end = lengths.cumsum(0).numpy()
        self.first = self.end - lengths.numpy()
        self.latent_channels = pack.latents.shape[1]
        self.melody_channels = pack.melody.shape[1]
        channels = self.latent_channels + self.melody_channels
        total = int(self.end[-1])
        self.features = torch.zeros(total + 1, channels, dtype=torch.uint8)
        self._audible = np.ones(total, dtype=bool)
        for index, recording in enumerate(recordings.tolist()):
            there = slice(int(pack.first[recording]), int((pack.first + pack.frames)[recording]))
            here = slice(int(self.first[index]), int(self.end[index]))
            self.features[here, : self.latent_channels] = pack.latents[there]
            self.features[here, self.latent_channels :] = pack.melody[there]
            if pack.peak is not None:
                self._audible[here] = (pack.peak[there].float() > _AUDIBLE).numpy()

    def starts(self, recordings: np.ndarray) -> np.ndarray:
        """Return the first rows of all audible crops.

        Args:
            recordings: whether to use each recording [R].
        """
        count = np.concatenate([[0], self._audible.cumsum()])
        rows = [
            np.arange(self.first[r], max(self.first[r], self.end[r] - self.frames) + 1)
            for r in np.flatnonzero(recordings)
        ]
        starts = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
        return starts[count[self.stops(starts)] > count[starts]]

    def recording(self, starts: np.ndarray) -> np.ndarray:
        """Return the index of the recording of each crop."""
        return np.searchsorted(self.first, starts, side="right") - 1

    def stops(self, starts: np.ndarray) -> np.ndarray:
        """Return the row after the last one of each crop, at most the end of its recording."""
        return np.minimum(starts + self.frames, self.end[self.recording(starts)])

    def batch(self, starts: np.ndarray) -> Batch:
        """Gather crops.

        Args:
            starts: first rows of the crops [B].

        Returns:
            Features [B, D + M, L] in uint8, with their labels [B] if there are labels, on the
            device of `features`.
        """
        device = self.features.device
        rows = starts[:, None] + np.arange(self.frames)
        rows = np.where(rows < self.stops(starts)[:, None], rows, len(self.features) - 1)
        crops = self.features[_to(rows, device)].transpose(1, 2).contiguous()
        if self.labels is None:
            return crops
        recording = self.recording(starts)
        varied = self.varied[recording] * self.labels.has_conditions
        label = self.instrument[recording] + varied * max(len(self.labels.instruments), 1)
        return crops, _to(label, device)

    def item(self, start: int) -> Any:
        """Return one crop [D + M, L], with its label if there are labels."""
        batch = self.batch(np.array([start]))
        return batch[0] if isinstance(batch, Tensor) else (batch[0][0], int(batch[1]))


def _to(values: np.ndarray, device: torch.device) -> Tensor:
    """Copy integers to a device; a GPU does not wait for the copy."""
    tensor = torch.from_numpy(values.astype(np.int64, copy=False))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _label_indices(pack: Pack, recordings: Tensor, labels: Labels | None) -> np.ndarray:
    """Return the index in `labels` of each recording's instrument; 0 if labels name none."""
    instrument = pack.instrument[recordings].numpy()
    if labels is None or not labels.instruments:
        return np.zeros_like(instrument)
    names = [_plain(name) for name in labels.instruments]
    there = [_plain(name) for name in pack.metadata.instruments]
    missing = [there[i] for i in np.unique(instrument) if there[i] not in names]
    if missing:
        raise InputError(
            f"{pack.path} holds recordings of {', '.join(missing)}, which none of the labels "
            f"{', '.join(names)} names: select instruments=[...]"
        )
    index = np.array([names.index(name) if name in names else -1 for name in there])
    return index[instrument]
