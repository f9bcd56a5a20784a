"""The small codec: log-mel bands, decoded by a vocoder."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audio_diffusion_pytorch.audio.mel import LogMel
from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.codecs.griffin_lim import MelGriffinLim
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.devices import exactly
from audio_diffusion_pytorch.utils.hashing import fingerprint
from audio_diffusion_pytorch.utils.safetensors_io import open_safetensors, write_safetensors
from audio_diffusion_pytorch.utils.settings import check_choice

_MAX_LOG_GAIN = 3.0  # natural logarithm of the highest gain of `impose_levels`: 26 dB
# Half the window over which `impose_levels` averages; the average preserves attacks and decays.
_LEVEL_SECONDS = 0.25
QUIET = 1e-5  # amplitude below which the predicted amplitudes are alike: -100 dB
_PREDICTS = ("amplitudes", "sound")  # outputs of the network
_ENCODER_SETTINGS = ("sample_rate", "hop_length", "n_mels", "n_fft", "f_min", "floor")


@dataclass(frozen=True)
class MelConfig:
    """Arguments of `MelCodec`, in the order of the metadata of its files."""

    sample_rate: int
    hop_length: int
    n_mels: int
    n_fft: int
    synthesis_n_fft: int
    f_min: float
    floor: float
    dim: int
    intermediate_dim: int
    num_layers: int
    name: str
    rounds: int
    predicts: str


class AmplitudeHead(nn.Module):
    """Predict the amplitudes of a spectrum as a correction of those of its mel bands.

    Args:
        dim: channels of the input.
        shares: share of each mel band in each frequency [bands, F], see `MelGriffinLim`.
    """

    shares: Tensor

    def __init__(self, dim: int, shares: Tensor):
        super().__init__()
        self.out = nn.Linear(dim, shares.shape[1])
        self.register_buffer("shares", shares, persistent=False)

    def forward(self, hidden: Tensor, mel: Tensor) -> Tensor:
        """Return log amplitudes [B, L, F] for hidden [B, L, dim] and amplitudes [B, L, bands]."""
        quiet = math.log(QUIET)
        bands = (mel + QUIET).log() - quiet
        return quiet + bands @ self.shares + self.out(hidden).clamp_max(_MAX_LOG_GAIN)


class MelCodec(Codec):
    """Log-mel spectrogram, decoded by a network and `MelGriffinLim`.

    The network has the backbone of Vocos (Siuzdak 2023, arXiv 2306.00814). It predicts the
    amplitudes of every second frame; `propagate_phases` chooses their phases. Codecs of the first
    version predict the sound, with Vocos' head for an inverse STFT.

    Latents are ln(mel + floor): a full-scale sine peaks near 0, silence is ln(floor) = -9.2, that
    is -80 dB.

    Args:
        sample_rate: sample rate in Hz.
        hop_length: samples of one latent frame.
        n_mels: mel bands, the channels of the latents.
        n_fft: analysis window in samples.
        synthesis_n_fft: window of the decoder's inverse STFT in samples; only `predicts="sound"`
            uses it.
        f_min: lower edge of the lowest band in Hz.
        floor: added to the mel amplitudes; lower amplitudes are lost.
        dim: width of the decoder's backbone.
        intermediate_dim: width of the backbone's hidden layers.
        num_layers: layers of the backbone.
        name: name of the codec.
        rounds: rounds of `MelGriffinLim`.
        predicts: output of the network, "amplitudes" or "sound".

    Attributes:
        config: the arguments by name.
    """

    encodes_fast = True
    has_frequency_bands = True
    # The head clips magnitudes at 100, and a full-scale sine has synthesis_n_fft / 4: stay well
    # below the clip.
    _HEAD_GAIN = 8.0

    def __init__(
        self,
        sample_rate: int = 24000,
        hop_length: int = 320,
        n_mels: int = 128,
        n_fft: int = 2048,
        synthesis_n_fft: int = 1280,
        f_min: float = 20.0,
        floor: float = 1e-4,
        dim: int = 320,
        intermediate_dim: int = 960,
        num_layers: int = 6,
        name: str = "small",
        rounds: int = 4,
        predicts: str = "amplitudes",
    ):
        super().__init__()
        from vocos.heads import ISTFTHead
        from vocos.models import VocosBackbone

        check_choice("predicts", predicts, _PREDICTS)

        config = MelConfig(
            sample_rate=sample_rate,
            hop_length=hop_length,
            n_mels=n_mels,
            n_fft=n_fft,
            synthesis_n_fft=synthesis_n_fft,
            f_min=f_min,
            floor=floor,
            dim=dim,
            intermediate_dim=intermediate_dim,
            num_layers=num_layers,
            name=name,
            rounds=rounds,
            predicts=predicts,
        )
        self.config = asdict(config)
        self.name = name
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.latent_channels = n_mels
        self.edge_frames = n_fft // (2 * hop_length)
        self.mel = LogMel(sample_rate, n_fft, hop_length, n_mels, f_min, floor)
        self.phase = MelGriffinLim(cast(Tensor, self.mel.filters), n_fft, hop_length, rounds)
        self.head: nn.Module
        if predicts == "sound":
            self.backbone = VocosBackbone(n_mels, dim, intermediate_dim, num_layers)
            self.head = ISTFTHead(dim, synthesis_n_fft, hop_length, padding="same")
        else:
            joined = n_mels * self.phase.stride
            self.backbone = VocosBackbone(joined, dim, intermediate_dim, num_layers)
            self.head = AmplitudeHead(dim, self.phase.shares)

    @property
    def phase_rounds(self) -> int:  # type: ignore[override]
        """Rounds of `MelGriffinLim`."""
        return self.phase.rounds

    def with_phase_rounds(self, rounds: int) -> MelCodec:
        """Return a codec with another number of rounds that shares everything else."""
        other = copy.copy(self)
        other._modules = {**self._modules, "phase": copy.copy(self.phase)}
        other.phase.rounds = rounds
        return other

    def encode(self, wav: Tensor) -> Tensor:
        """Encode wav [B, 1, T] to log-mel bands [B, n_mels, ceil(T / hop_length)]."""
        return exactly(self.mel, self._pad(wav).squeeze(1))

    def fingerprint(self) -> str:
        """Hash the encoder's settings, which determine the latents, to 16 hexadecimal digits."""
        return fingerprint("MelCodec", *(self.config[name] for name in _ENCODER_SETTINGS))

    def decode(self, latents: Tensor, length: int | None = None) -> Tensor:
        """Decode latents [B, n_mels, L] to wav [B, 1, length]; None: L * hop_length samples."""
        # Replicate-pad: zero padding would add half a window of silence that Griffin-Lim must
        # compensate for.
        pad = -(-self.mel.n_fft // (2 * self.hop_length)) * 2
        wav = self._decode(F.pad(latents, (pad, pad), mode="replicate"))
        return wav[:, None, pad * self.hop_length : -pad * self.hop_length][..., :length]

    def decode_after(self, latents: Tensor, past: Tensor) -> Tensor:
        """Decode latents, and let the phases continue the known sound `past`; see `Codec`."""
        pad = -(-self.mel.n_fft // (2 * self.hop_length)) * 2
        wav = self._decode(F.pad(latents, (0, pad), mode="replicate"), past[:, 0])
        return wav[:, None, : -pad * self.hop_length]

    def _decode(self, latents: Tensor, *past: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            mel = self.amplitudes(latents)
            return exactly(self.phase, self.predict(latents), mel, *past)

    def predict(self, latents: Tensor) -> Tensor:
        """Predict the start of `MelGriffinLim` from latents [B, n_mels, L].

        Returns:
            Amplitudes [B, ceil(L / 2), n_fft // 2 + 1], or sound [B, L * hop_length].
        """
        if isinstance(self.head, AmplitudeHead):
            return self.log_amplitudes(latents).exp()
        hidden = self.backbone(self._standardised(latents))
        # The inverse FFT supports float32 only.
        with torch.autocast(latents.device.type, enabled=False):
            return exactly(self.head, hidden.float()) * self._HEAD_GAIN

    def log_amplitudes(self, latents: Tensor) -> Tensor:
        """Predict the spectra of every second frame, see `MelGriffinLim.stride`.

        Args:
            latents: [B, n_mels, L].

        Returns:
            Log amplitudes [B, ceil(L / 2), n_fft // 2 + 1] in float32, see `MelGriffinLim.spectra`.
        """
        stride = self.phase.stride
        joined = F.pad(latents, (0, -latents.shape[-1] % stride), mode="replicate")
        joined = joined.unflatten(-1, (-1, stride)).movedim(-1, 1).flatten(1, 2)
        hidden = self.backbone(self._standardised(joined))
        with torch.autocast(latents.device.type, enabled=False):
            return self.head(hidden.float(), self.amplitudes(latents[..., ::stride]).mT)

    def amplitudes(self, latents: Tensor) -> Tensor:
        """Return the amplitudes of the mel bands of latents."""
        return (latents.float().exp() - self.mel.floor).clamp_min(0.0)

    def _standardised(self, latents: Tensor) -> Tensor:
        """Bring latents to values of order one, which the first convolution expects."""
        return (latents + 5.0) / 2.5

    def frame_levels(self, latents: Tensor) -> Tensor:
        """Return the log level [B, L] of latents [B, n_mels, L]: half the log of the power."""
        amplitude = latents.exp() - self.mel.floor
        return 0.5 * (amplitude.square().sum(1) + self.mel.floor**2).log()

    def impose_levels(self, latents: Tensor, levels: Tensor) -> Tensor:
        """Scale latents [B, n_mels, L] to the levels [B, L], averaged over half a second."""
        frames = round(_LEVEL_SECONDS * self.sample_rate / self.hop_length)
        kernel = torch.hann_window(2 * frames + 1, device=latents.device)[None, None]
        weights = levels.exp()[:, None] + self.mel.floor  # loud frames count most
        difference = weights * (levels - self.frame_levels(latents))[:, None]
        weighted = F.conv1d(difference, kernel, padding=frames)
        log_gain = weighted / F.conv1d(weights, kernel, padding=frames)
        gain = log_gain.clamp(-_MAX_LOG_GAIN, _MAX_LOG_GAIN).exp()
        return (self.amplitudes(latents) * gain + self.mel.floor).log()

    def save(self, path: str | Path, metadata: dict[str, str] | None = None) -> None:
        """Write the network in half precision as .safetensors, with its configuration as metadata.

        Args:
            path: file to write.
            metadata: further entries of the metadata.

        Raises:
            InputError: the file cannot be written.
        """
        tensors = {key: value.half() for key, value in self.state_dict().items()}
        write_safetensors(path, tensors, {"codec": json.dumps(self.config), **(metadata or {})})

    @classmethod
    def load(cls, path: str | Path) -> MelCodec:
        """Read a file that `save` wrote.

        Raises:
            InputError: the file is missing, damaged or not a mel codec.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"codec file not found: {path}")
        with open_safetensors(path, "a mel codec") as (header, tensors):
            # Files of the first version have no entry `predicts`.
            codec = cls(**{"predicts": "sound", **json.loads(header["codec"])})
            codec.load_state_dict({key: value.float() for key, value in tensors.items()})
        return codec
