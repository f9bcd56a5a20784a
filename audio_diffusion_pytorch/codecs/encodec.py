"""EnCodec at 24 kHz."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import remove_weight_norm

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.hashing import fingerprint


class EncodecCodec(Codec):
    """Continuous latents of EnCodec 24 kHz (Defossez et al. 2022): 128 channels, 75 frames/s.

    The codec skips the quantisation.

    Args:
        weights: None: the pretrained weights; "random": an untrained network, for tests and dry
            runs; otherwise a folder from the hub, the `encodec` package's file, a checkpoint of the
            original with its codec, or tensors by name.
        repository: folder with the `encodec` package's weight file, or a folder from the hub; None:
            the package's own download.
        config: sizes of an untrained network: `n_filters`, `dimension`, `lstm`; sizes of trained
            networks are derived from the weights.

    Raises:
        InputError: the weights are missing, damaged or not EnCodec's.
    """

    name = "encodec"
    encoder: nn.Module
    decoder: nn.Module

    def __init__(
        self,
        weights: str | Path | Mapping[str, Tensor] | None = None,
        repository: str | Path | None = None,
        config: dict[str, Any] | None = None,
    ):
        super().__init__()
        from encodec.modules import SEANetDecoder, SEANetEncoder

        from audio_diffusion_pytorch.codecs.encodec_weights import load_into, load_weights

        untrained = isinstance(weights, str) and weights == "random"
        if config and not untrained:
            raise InputError(
                'codec.config applies to codec.weights="random" only: sizes of trained networks '
                "are derived from "
                "their weights; remove codec.config"
            )
        state: dict[str, Tensor] | None = None
        sizes: dict[str, Any] = config or {}
        if not untrained:
            state, sizes = load_weights(weights, repository)
        settings: dict[str, Any] = {
            "norm": "weight_norm",
            "causal": True,
            "n_filters": 32,
            "dimension": 128,
            **sizes,
        }
        self.sample_rate = 24000
        with warnings.catch_warnings():  # the package uses torch's deprecated weight norm
            warnings.simplefilter("ignore", FutureWarning)
            self.encoder = SEANetEncoder(**settings)
            self.decoder = SEANetDecoder(**settings)
        if state is not None:
            load_into({"encoder": self.encoder, "decoder": self.decoder}, state)
        self.hop_length = int(self.encoder.hop_length)
        self.latent_channels = int(self.encoder.dimension)

    def freeze(self) -> Codec:
        """Freeze the codec, and fold weight norm into the weights, which speeds up every call."""
        for module in self.modules():
            if hasattr(module, "weight_g"):
                remove_weight_norm(module)
        return super().freeze()

    def encode(self, wav: Tensor) -> Tensor:
        """Encode wav [B, 1, T] to latents [B, D, ceil(T / hop_length)]."""
        return self.encoder(self._pad(wav))

    def fingerprint(self) -> str:
        """Hash the encoder's weights, which determine the latents, to 16 hexadecimal digits."""
        return fingerprint("EncodecCodec", self.hop_length, self.encoder.state_dict())

    def decode(self, latents: Tensor, length: int | None = None) -> Tensor:
        """Decode latents [B, D, L] to wav [B, 1, length]; None: L * hop_length samples."""
        return self.decoder(latents)[..., :length]
