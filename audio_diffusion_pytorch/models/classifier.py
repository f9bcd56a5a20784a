"""Instrument classifier: a small convolutional network over log-mel frames.

The classifier scores transfers, so it must ignore artefacts of renderers and codecs: it normalises
the level of each clip, and masks frequencies above `f_max` and levels below `floor`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audio_diffusion_pytorch.audio import resample
from audio_diffusion_pytorch.audio.mel import LogMel
from audio_diffusion_pytorch.command_line import typed
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.paths import ASSETS
from audio_diffusion_pytorch.utils.devices import exactly
from audio_diffusion_pytorch.utils.safetensors_io import open_safetensors, write_safetensors

FORMAT = "audio_diffusion_pytorch.classifier.1"
_SILENCE = 1e-5  # peak below which a clip is silent


class InstrumentClassifier(nn.Module):
    """Classifier of the instrument in a clip.

    Every 40 ms the network computes logits from 0.35 s of sound (an attack and the start of a
    note); the logits of a clip are their mean, weighted by attention over time. Averaging follows
    all nonlinear layers.

    Args:
        instruments: names in the order of the logits.
        channels: channels of each convolution; each halves frequency, the first two also halve
            time.
        hidden: channels of the pooled frames.
        sample_rate: sample rate of the network in Hz.
        n_fft: window of the spectrogram in samples.
        hop_length: hop of the spectrogram in samples.
        n_mels: mel bands.
        f_min: lowest frequency in Hz.
        f_max: highest frequency in Hz.
        floor: added to the mel amplitudes of a clip with an RMS of 1.
        dropout: share of the pooled frames' channels dropped in training.

    Attributes:
        config: the arguments by name, sequences as lists.
    """

    def __init__(
        self,
        instruments: Sequence[str],
        channels: Sequence[int] = (24, 48, 72, 112),
        hidden: int = 128,
        sample_rate: int = 24000,
        n_fft: int = 1024,
        hop_length: int = 240,
        n_mels: int = 64,
        f_min: float = 40.0,
        f_max: float = 7600.0,
        floor: float = 1e-3,
        dropout: float = 0.2,
    ):
        super().__init__()
        self.instruments = tuple(instruments)
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.config = {
            "instruments": list(instruments),
            "channels": list(channels),
            "hidden": hidden,
            "sample_rate": sample_rate,
            "n_fft": n_fft,
            "hop_length": hop_length,
            "n_mels": n_mels,
            "f_min": f_min,
            "f_max": f_max,
            "floor": floor,
            "dropout": dropout,
        }
        self.mel = LogMel(sample_rate, n_fft, hop_length, n_mels, f_min, floor, f_max)
        blocks: list[nn.Module] = []
        for index, (before, after) in enumerate(zip([1, *channels[:-1]], channels, strict=True)):
            width = 5 if index == 0 else 3
            stride = 2 if index < 2 else (2, 1)
            convolution = nn.Conv2d(before, after, width, stride, width // 2, bias=False)
            blocks += [convolution, nn.BatchNorm2d(after), nn.SiLU()]
        self.local = nn.Sequential(*blocks)
        bands = -(-n_mels // 2 ** len(channels))
        self.frames = nn.Sequential(
            nn.Conv1d(channels[-1] * bands, hidden, 3, padding=1, bias=False),
            nn.BatchNorm1d(hidden),
            nn.SiLU(),
        )
        self.dropout = nn.Dropout(dropout)
        self.attention = nn.Conv1d(hidden, 1, 1)
        self.head = nn.Conv1d(hidden, len(self.instruments), 1)

    def forward(self, wav: Tensor) -> Tensor:
        """Map wav [B, T] at `sample_rate`, at any level, to logits [B, N]."""
        level = wav.square().mean(-1, keepdim=True).sqrt()
        wav = F.pad(wav / level.clamp_min(1e-8), (0, -wav.shape[-1] % self.hop_length))
        # Standardise: the first convolution expects values of order one.
        x = (exactly(self.mel, wav) + 4.0) / 2.5
        x = self.frames(self.local(x[:, None]).flatten(1, 2))
        weights = self.attention(x).softmax(-1)
        return (self.head(self.dropout(x)) * weights).sum(-1)

    @torch.inference_mode()
    def probabilities(self, wav: Tensor, sample_rate: int) -> Tensor:
        """Classify clips.

        Args:
            wav: [B, T].
            sample_rate: sample rate of wav in Hz.

        Returns:
            Probabilities [B, N] in the order of `instruments`, float32 on the CPU; uniform for a
            silent clip.

        Raises:
            InputError: wav is not [B, T], is empty, or contains NaN or infinite samples.
        """
        if wav.dim() != 2 or wav.shape[1] == 0 or not torch.isfinite(wav).all():
            raise InputError(
                f"wav must be [B, T] with T > 0 and finite samples, got {list(wav.shape)}"
            )
        resampled = resample(wav.float(), sample_rate, self.sample_rate)
        found = self(resampled.to(self.head.weight.device)).softmax(-1).cpu()
        silent = wav.abs().amax(-1, keepdim=True).cpu() < _SILENCE
        return torch.where(silent, 1 / len(self.instruments), found)

    def classify(self, wav: Tensor, sample_rate: int) -> list[str | None]:
        """Return the most probable instrument of each clip of wav [B, T], None for silence.

        Raises:
            InputError: see `probabilities`.
        """
        best = self.probabilities(wav, sample_rate).argmax(-1).tolist()
        silent = (wav.abs().amax(-1) < _SILENCE).tolist()
        return [
            None if quiet else self.instruments[index]
            for quiet, index in zip(silent, best, strict=True)
        ]

    def save(self, path: str | Path, metadata: dict[str, str] | None = None) -> None:
        """Write the weights as .safetensors, with the configuration as metadata.

        Matrices are in half precision.

        Args:
            path: file to write.
            metadata: further entries of the metadata.

        Raises:
            InputError: the file cannot be written.
        """
        state = self.state_dict()
        tensors = {key: value.half() if value.dim() > 1 else value for key, value in state.items()}
        header = {"format": FORMAT, "classifier": json.dumps(self.config), **(metadata or {})}
        write_safetensors(path, tensors, header)


def load_classifier(
    path: str | Path | None = None, device: str | torch.device = "cpu"
) -> InstrumentClassifier:
    """Load the shipped classifier, or a classifier that a training run exported.

    Args:
        path: exported file; None: the shipped classifier.
        device: device of the result.

    Raises:
        InputError: the file is missing, damaged or not a classifier.
    """
    path = ASSETS / "classifier.safetensors" if path is None else Path(path)
    if not path.is_file():
        raise InputError(
            f"classifier file not found: {path}; train one with {typed('train')} exp=classifier"
        )
    with open_safetensors(path, "an instrument classifier", FORMAT) as (header, tensors):
        classifier = InstrumentClassifier(**json.loads(header["classifier"]))
        classifier.load_state_dict(tensors)
    return classifier.eval().requires_grad_(False).to(device)
