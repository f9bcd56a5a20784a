"""Codecs: wav [B, 1, T] <-> latents [B, D, L]. EnCodec 24 kHz, and the small mel codec that ships.

Frame rate and hop come from the codec; nothing else configures them.
"""

import hashlib
import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import remove_weight_norm

from audio_diffusion_pytorch.devices import exactly
from audio_diffusion_pytorch.errors import InputError, replacing
from audio_diffusion_pytorch.mel_phase import MelPhase

_MOST_GAIN = 3.0  # logarithm of the highest gain by which a level is followed: 26 dB
ASSETS = Path(__file__).parent / "assets"


class Codec(nn.Module):
    """What every codec offers. Lengths come back exactly as they went in.

    Attributes:
        cheap: encoding takes no longer than reading latents from a disk does.
        spectral: the latents' channels are neighbouring frequency bands.
        edge: latent frames at each end of a recording that see beyond it.
    """

    cheap = spectral = False
    edge = 0
    name: str
    sample_rate: int
    hop_length: int
    latent_channels: int

    def encode(self, wav: Tensor) -> Tensor:
        """wav [B, 1, T] in [-1, 1] -> latents [B, D, ceil(T / hop_length)]."""
        raise NotImplementedError

    def decode(self, latents: Tensor, length: int | None = None) -> Tensor:
        """latents [B, D, L] -> wav [B, 1, T], T = `length` samples (None: L * hop_length)."""
        raise NotImplementedError

    def levels(self, latents: Tensor) -> Tensor:
        """Level of each frame of latents [B, D, L], a logarithm [B, L]; zeros where the latents do not tell."""
        return torch.zeros_like(latents[:, 0])

    def follow(self, latents: Tensor, levels: Tensor) -> Tensor:
        """Latents [B, D, L] made to rise and fall as `levels` [B, L] do, where the codec knows how."""
        return latents

    def num_frames(self, length: int) -> int:
        """Latent frames of `length` samples."""
        return math.ceil(length / self.hop_length)

    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell this codec's latents from those of another, or of other weights."""
        return _fingerprint(type(self).__name__, self.hop_length, self.state_dict())

    def freeze(self) -> "Codec":
        return self.eval().requires_grad_(False)

    def _pad(self, wav: Tensor) -> Tensor:
        if wav.dim() != 3 or wav.shape[1] != 1 or wav.shape[2] == 0:
            raise ValueError(f"a codec takes wav [B, 1, T] with T > 0, not {list(wav.shape)}")
        return F.pad(wav, (0, -wav.shape[-1] % self.hop_length))


class MelCodec(Codec):
    """Log-mel spectrogram, turned back into sound by a Vocos network (Siuzdak 2023, arXiv 2306.00814), and `MelPhase`.

    Latents are ln(mel + floor): a full-scale sine peaks near 0, silence is ln(floor) = -9.2, that is -80 dB.

    Args:
        n_fft: analysis window in samples.
        synthesis_n_fft: window of the decoder's inverse STFT in samples.
        floor: added to the mel amplitudes; what lies below it is not kept.
        f_min: lower edge of the lowest band in Hz.
        rounds: of `MelPhase`.
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
        self.name, self.sample_rate, self.hop_length, self.latent_channels = name, sample_rate, hop_length, n_mels
        self.edge = n_fft // (2 * hop_length)
        self.mel = LogMel(sample_rate, n_fft, hop_length, n_mels, f_min, floor)
        self.backbone = VocosBackbone(n_mels, dim, intermediate_dim, num_layers)
        self.head = ISTFTHead(dim, synthesis_n_fft, hop_length, padding="same")
        self.phase = MelPhase(self.mel.filters, n_fft, hop_length, rounds)

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
        with torch.autocast(latents.device.type, enabled=False):  # the inverse FFT knows float32 only
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
        lacking = F.conv1d(weights * (levels - self.levels(latents))[:, None], kernel, padding=frames)
        gain = (lacking / F.conv1d(weights, kernel, padding=frames)).clamp(-_MOST_GAIN, _MOST_GAIN).exp()
        return ((latents.exp() - self.mel.floor).clamp_min(0.0) * gain + self.mel.floor).log()

    def save(self, path: str | Path, metadata: dict[str, str] | None = None) -> None:
        """Write the network in half precision as .safetensors, with its configuration in the metadata."""
        import json

        from safetensors.torch import save_file

        tensors = {key: value.half().contiguous().cpu() for key, value in self.state_dict().items()}
        with replacing(path) as temporary:
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


class LogMel(nn.Module):
    """wav [B, T] -> ln(mel + floor) [B, n_mels, T / hop_length]; T a multiple of hop_length.

    Amplitudes are scaled so that a full-scale sine has a spectral peak of 1.
    """

    def __init__(
        self,
        sample_rate: int,
        n_fft: int,
        hop_length: int,
        n_mels: int,
        f_min: float,
        floor: float,
        f_max: float | None = None,
    ):
        super().__init__()
        from torchaudio.functional import melscale_fbanks

        self.n_fft, self.hop_length, self.floor = n_fft, hop_length, floor
        window = torch.hann_window(n_fft)
        filters = melscale_fbanks(n_fft // 2 + 1, f_min, f_max or sample_rate / 2, n_mels, sample_rate)
        self.register_buffer("window", window / window.sum() * 2, persistent=False)
        self.register_buffer("filters", filters.T.contiguous(), persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        with torch.autocast(wav.device.type, enabled=False):
            # Frame i is centred on hop i's middle, so that L = T / hop and decoding needs no shift.
            wav = F.pad(wav.float(), ((self.n_fft - self.hop_length) // 2,) * 2)
            spectrum = torch.stft(
                wav, self.n_fft, self.hop_length, window=self.window, center=False, return_complex=True
            )
            return torch.log(self.filters @ spectrum.abs() + self.floor)


class EncodecCodec(Codec):
    """The continuous latents of EnCodec 24 kHz (Defossez et al. 2022), before quantisation: 128 channels, 75 frames/s.

    Args:
        weights: None for the pretrained weights, "random" for an untrained network (tests and dry runs); or a folder
            from the hub, the package's file, a checkpoint of the original that holds its codec, tensors by name.
        repository: a folder with the `encodec` package's weight file, or one from the hub; None: its own download.
        config: sizes of an untrained network: `n_filters`, `dimension`, `lstm`; other ones are read off the weights.

    Raises:
        InputError: no weights there, or not EnCodec's, or damaged.
    """

    name = "encodec"

    def __init__(
        self,
        weights: str | Path | Mapping[str, Tensor] | None = None,
        repository: str | Path | None = None,
        config: dict | None = None,
    ):
        super().__init__()
        from encodec.modules import SEANetDecoder, SEANetEncoder

        from audio_diffusion_pytorch.encodec_weights import load_into, load_weights

        untrained = isinstance(weights, str) and weights == "random"
        if config and not untrained:
            raise InputError('codec.config is for codec.weights="random": trained weights tell their sizes themselves')
        state, sizes = (None, config or {}) if untrained else load_weights(weights, repository)
        settings = {"norm": "weight_norm", "causal": True, "n_filters": 32, "dimension": 128, **sizes}
        self.sample_rate = 24000
        with warnings.catch_warnings():  # the package's weight norm is an old one of torch's
            warnings.simplefilter("ignore", FutureWarning)
            self.encoder, self.decoder = SEANetEncoder(**settings), SEANetDecoder(**settings)
        if state is not None:
            load_into({"encoder": self.encoder, "decoder": self.decoder}, state)
        self.hop_length = int(self.encoder.hop_length)
        self.latent_channels = self.encoder.dimension

    def freeze(self) -> "Codec":
        """Weight norm is folded: direction times gain is computed once, not in every call."""
        for module in self.modules():
            if hasattr(module, "weight_g"):
                remove_weight_norm(module)
        return super().freeze()

    def encode(self, wav: Tensor) -> Tensor:
        return self.encoder(self._pad(wav))

    def fingerprint(self) -> str:
        return _fingerprint("EncodecCodec", self.hop_length, self.encoder.state_dict())

    def decode(self, latents: Tensor, length: int | None = None) -> Tensor:
        return self.decoder(latents)[..., :length]


def _fingerprint(*parts: object) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, Mapping):
            for key, value in part.items():
                digest.update(key.encode())
                digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        else:
            digest.update(f"{part};".encode())
    return digest.hexdigest()


def load_codec(name: str | Path = "small", **kwargs) -> Codec:
    """A frozen codec by name (`small`, `encodec`) or by the path of a mel codec's .safetensors file."""
    if str(name) == "small":
        return MelCodec.load(ASSETS / "codec_small.safetensors").freeze()
    if str(name) == "encodec":
        return EncodecCodec(**kwargs).freeze()
    if Path(name).suffix == ".safetensors":
        return MelCodec.load(name).freeze()
    raise InputError(f"no codec named {name!r}: use small, encodec or the path of a codec's .safetensors file")
