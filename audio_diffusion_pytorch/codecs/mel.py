"""The small codec: log-mel bands, decoded by a vocoder."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from audio_diffusion_pytorch.audio.mel import LogMel
from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.codecs.griffin_lim import MelGriffinLim
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.devices import exactly
from audio_diffusion_pytorch.utils.files import atomic_write
from audio_diffusion_pytorch.utils.hashing import _fingerprint

_MOST_GAIN = 3.0  # logarithm of the highest gain by which a level is followed: 26 dB


class MelCodec(Codec):
    """Log-mel spectrogram, decoded by a Vocos network (Siuzdak 2023, arXiv 2306.00814) and `MelGriffinLim`.

    Latents are ln(mel + floor): a full-scale sine peaks near 0, silence is ln(floor) = -9.2, that is -80 dB.

    Args:
        n_fft: analysis window in samples.
        synthesis_n_fft: window of the decoder's inverse STFT in samples.
        floor: added to the mel amplitudes; what lies below it is not kept.
        f_min: lower edge of the lowest band in Hz.
        rounds: of `MelGriffinLim`.
    """

    cheap = spectral = True
    # The head clips magnitudes at 100, a full-scale sine has synthesis_n_fft / 4: keep it well under the clip.
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
        dim: int = 256,
        intermediate_dim: int = 720,
        num_layers: int = 5,
        name: str = "small",
        rounds: int = 16,
    ):
        super().__init__()
        from vocos.heads import ISTFTHead
        from vocos.models import VocosBackbone

        self.config = {
            key: value
            for key, value in locals().items()
            if key not in ("self", "__class__", "ISTFTHead", "VocosBackbone")
        }
        self.name, self.sample_rate, self.hop_length, self.latent_channels = (
            name,
            sample_rate,
            hop_length,
            n_mels,
        )
        self.edge = n_fft // (2 * hop_length)
        self.mel = LogMel(sample_rate, n_fft, hop_length, n_mels, f_min, floor)
        self.backbone = VocosBackbone(n_mels, dim, intermediate_dim, num_layers)
        self.head = ISTFTHead(dim, synthesis_n_fft, hop_length, padding="same")
        self.phase = MelGriffinLim(self.mel.filters, n_fft, hop_length, rounds)

    def encode(self, wav: Tensor) -> Tensor:
        return exactly(self.mel, self._pad(wav).squeeze(1))

    def fingerprint(self) -> str:
        names = ("sample_rate", "hop_length", "n_mels", "n_fft", "f_min", "floor")
        return _fingerprint("MelCodec", *(self.config[name] for name in names))

    def decode(self, latents: Tensor, length: int | None = None) -> Tensor:
        # The sound is taken to go on at both ends: half a window of silence there would have to be made up for.
        pad = -(-self.mel.n_fft // (2 * self.hop_length)) * 2
        latents = F.pad(latents, (pad, pad), mode="replicate")
        with torch.autocast(latents.device.type, enabled=False):
            mel = (latents.float().exp() - self.mel.floor).clamp_min(0.0)
            wav = exactly(self.phase, self.synthesise(latents)[:, 0], mel)
        return wav[:, None, pad * self.hop_length : -pad * self.hop_length][..., :length]

    def synthesise(self, latents: Tensor) -> Tensor:
        """The network's sound [B, 1, T] of latents [B, D, L], its phases as they come."""
        # Centred, so that the first convolution sees values of order one.
        hidden = self.backbone((latents + 5.0) / 2.5)
        with torch.autocast(
            latents.device.type, enabled=False
        ):  # the inverse FFT knows float32 only
            wav = exactly(self.head, hidden.float()) * self._HEAD_GAIN
        return wav[:, None]

    def levels(self, latents: Tensor) -> Tensor:
        amplitude = latents.exp() - self.mel.floor
        return 0.5 * (amplitude.square().sum(1) + self.mel.floor**2).log()

    def follow(self, latents: Tensor, levels: Tensor) -> Tensor:
        # Over half a second, so that attacks and decays stay the instrument's own; loud frames count most.
        frames = round(0.25 * self.sample_rate / self.hop_length)
        kernel = torch.hann_window(2 * frames + 1, device=latents.device)[None, None]
        weights = levels.exp()[:, None] + self.mel.floor
        lacking = F.conv1d(
            weights * (levels - self.levels(latents))[:, None], kernel, padding=frames
        )
        gain = (
            (lacking / F.conv1d(weights, kernel, padding=frames))
            .clamp(-_MOST_GAIN, _MOST_GAIN)
            .exp()
        )
        return ((latents.exp() - self.mel.floor).clamp_min(0.0) * gain + self.mel.floor).log()

    def save(self, path: str | Path, metadata: dict[str, str] | None = None) -> None:
        """Write the network in half precision as .safetensors, with its configuration in the metadata."""
        import json

        from safetensors.torch import save_file

        tensors = {key: value.half().contiguous().cpu() for key, value in self.state_dict().items()}
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, {"codec": json.dumps(self.config), **(metadata or {})})

    @classmethod
    def load(cls, path: str | Path) -> "MelCodec":
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing, damaged or holds no mel codec.
        """
        import json

        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise InputError(f"no such codec file: {path}")
        try:
            with safe_open(path, "pt") as file:
                config = json.loads((file.metadata() or {})["codec"])
                codec = cls(**config)
                codec.load_state_dict({key: file.get_tensor(key).float() for key in file.keys()})  # noqa: SIM118
        except (SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
            raise InputError(f"cannot read {path} as a mel codec: {error}") from error
        return codec
