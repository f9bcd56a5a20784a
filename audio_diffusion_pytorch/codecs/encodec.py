"""EnCodec at 24 kHz."""

import warnings
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.nn.utils import remove_weight_norm

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.hashing import _fingerprint


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

        from audio_diffusion_pytorch.codecs.encodec_weights import load_into, load_weights

        untrained = isinstance(weights, str) and weights == "random"
        if config and not untrained:
            raise InputError(
                'codec.config is for codec.weights="random": trained weights tell their sizes themselves'
            )
        state, sizes = (None, config or {}) if untrained else load_weights(weights, repository)
        settings = {
            "norm": "weight_norm",
            "causal": True,
            "n_filters": 32,
            "dimension": 128,
            **sizes,
        }
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
