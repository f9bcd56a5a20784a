"""Which instrument plays: a small convolutional network over log-mel frames, and the one that ships.

It judges transfers, so it must not lean on what a renderer or codec leaves behind: clips are brought to one level, and
frequencies above `f_max` and levels under `floor` are not heard.
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
from audio_diffusion_pytorch.utils.files import atomic_write

FORMAT = "audio_diffusion_pytorch.classifier.1"
_SILENCE = 1e-5  # peak below which a clip is silence


class InstrumentClassifier(nn.Module):
    """wav [B, T] -> logits [B, N] over `instruments`.

    Every 40 ms the network sees 0.35 s (an attack, a note's course) and gives its own logits; their mean, weighted by
    attention over time, is the clip's answer. Nothing is averaged before it has gone through the nonlinear layers.

    Args:
        instruments: names, in the order of the logits.
        channels: of the convolutions; each halves frequency, the first two time as well.
        hidden: channels of the frames that are pooled.
        sample_rate: rate in Hz of what the network hears.
        n_fft, hop_length: window and hop of the spectrogram in samples.
        n_mels, f_min, f_max: mel bands, and their range in Hz.
        floor: added to the mel amplitudes of a clip brought to an RMS of 1.
        dropout: share of the pooled frames' channels dropped in training.
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
        self.instruments, self.sample_rate, self.hop_length = (
            tuple(instruments),
            sample_rate,
            hop_length,
        )
        self.config = {
            **{"instruments": list(instruments), "channels": list(channels), "hidden": hidden},
            **{
                "sample_rate": sample_rate,
                "n_fft": n_fft,
                "hop_length": hop_length,
                "n_mels": n_mels,
            },
            **{"f_min": f_min, "f_max": f_max, "floor": floor, "dropout": dropout},
        }
        self.mel = LogMel(sample_rate, n_fft, hop_length, n_mels, f_min, floor, f_max)
        blocks = []
        for index, (before, after) in enumerate(zip([1, *channels[:-1]], channels, strict=True)):
            width, stride = (5, 2) if index == 0 else (3, 2 if index == 1 else (2, 1))
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
        """wav [B, T] at `sample_rate`, at any level -> logits [B, N]."""
        level = wav.square().mean(-1, keepdim=True).sqrt()
        wav = F.pad(wav / level.clamp_min(1e-8), (0, -wav.shape[-1] % self.hop_length))
        x = (
            exactly(self.mel, wav) + 4.0
        ) / 2.5  # centred, so that the first convolution sees values of order one
        x = self.frames(self.local(x[:, None]).flatten(1, 2))
        weights = self.attention(x).softmax(-1)
        return (self.head(self.dropout(x)) * weights).sum(-1)

    @torch.inference_mode()
    def probabilities(self, wav: Tensor, sample_rate: int) -> Tensor:
        """wav [B, T] at `sample_rate` Hz -> probabilities [B, N] in the order of `instruments`, float32 on the CPU.

        A silent clip is no instrument: all are equally probable.

        Raises:
            InputError: wav is not [B, T], is empty, or holds NaN or infinite samples.
        """
        if wav.dim() != 2 or wav.shape[1] == 0 or not torch.isfinite(wav).all():
            raise InputError(
                f"the classifier takes wav [B, T], T > 0, of finite samples, not {list(wav.shape)}"
            )
        heard = resample(wav.float(), sample_rate, self.sample_rate).to(self.head.weight.device)
        found = self(heard).softmax(-1).cpu()
        silent = wav.abs().amax(-1, keepdim=True).cpu() < _SILENCE
        return torch.where(silent, 1 / len(self.instruments), found)

    def classify(self, wav: Tensor, sample_rate: int) -> list[str | None]:
        """The most probable instrument of each clip of wav [B, T], None for silence; errors as in `probabilities`."""
        best = self.probabilities(wav, sample_rate).argmax(-1).tolist()
        silent = (wav.abs().amax(-1) < _SILENCE).tolist()
        return [
            None if quiet else self.instruments[index]
            for quiet, index in zip(silent, best, strict=True)
        ]

    def save(self, path: str | Path, metadata: dict[str, str] | None = None) -> None:
        """Write the weights, matrices in half precision, as .safetensors; the configuration goes into its metadata."""
        from safetensors.torch import save_file

        state = {key: value.contiguous().cpu() for key, value in self.state_dict().items()}
        tensors = {key: value.half() if value.dim() > 1 else value for key, value in state.items()}
        with atomic_write(path) as temporary:
            save_file(
                tensors,
                temporary,
                {"format": FORMAT, "classifier": json.dumps(self.config), **(metadata or {})},
            )


def load_classifier(
    path: str | Path | None = None, device: str | torch.device = "cpu"
) -> InstrumentClassifier:
    """The classifier that ships, or the one that a training run exported to `path`.

    Raises:
        InputError: the file is missing, damaged or holds no classifier.
    """
    from safetensors import SafetensorError, safe_open

    path = ASSETS / "classifier.safetensors" if path is None else Path(path)
    if not path.is_file():
        raise InputError(
            f"no such classifier file: {path}; train one with {typed('train')} exp=classifier"
        )
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise InputError(
                    f"{path} is no instrument classifier (its metadata lacks format={FORMAT})"
                )
            classifier = InstrumentClassifier(**json.loads(header["classifier"]))
            classifier.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read {path} as an instrument classifier: {error}") from error
    return classifier.eval().requires_grad_(False).to(device)
