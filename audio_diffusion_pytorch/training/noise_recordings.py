"""Select the validation recordings on which the noise statistics of an export are measured."""

from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from audio_diffusion_pytorch.models.labels import Labels

_MOST = 32  # recordings of an instrument


def validation_recordings(
    valid: Any, labels: Labels, name: str, has_labels: bool
) -> dict[str, list[Tensor]]:
    """Read validation items, spread over the recordings.

    Args:
        valid: validation set of a `Datamodule`.
        labels: labels of the model.
        name: instrument of a model whose labels name none.
        has_labels: whether items are pairs of audio and label.

    Returns:
        Instrument -> at most 32 items [C, T].
    """
    names = labels.instruments or (name,)
    stride = -(-len(valid) // _MOST)
    wavs: dict[str, list[Tensor]] = {name: [] for name in names}
    order = sorted(range(len(valid)), key=lambda index: index % stride)
    for index in tqdm(order, desc="reading the validation recordings", unit="clip", delay=1):
        wav, label = valid[index] if has_labels else (valid[index], torch.tensor(0))
        found = wavs[names[int(labels.instrument(torch.as_tensor(label)))]]
        if len(found) < _MOST:
            found.append(wav)
        if all(len(items) == _MOST for items in wavs.values()):
            break
    return wavs
