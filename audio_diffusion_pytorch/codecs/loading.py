"""Codecs by name or file."""

from pathlib import Path
from typing import Any

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.codecs.encodec import EncodecCodec
from audio_diffusion_pytorch.codecs.mel import MelCodec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.paths import ASSETS


def load_codec(name: str | Path = "small", **kwargs: Any) -> Codec:
    """Load a codec and freeze it.

    Args:
        name: `small`, `encodec`, or the path of a mel codec's .safetensors file.
        kwargs: arguments of `EncodecCodec`.

    Raises:
        InputError: the name is unknown, or the weights cannot be loaded.
    """
    if str(name) == "small":
        return MelCodec.load(ASSETS / "codec_small.safetensors").freeze()
    if str(name) == "encodec":
        return EncodecCodec(**kwargs).freeze()
    if Path(name).suffix == ".safetensors":
        return MelCodec.load(name).freeze()
    raise InputError(
        f"unknown codec {name!r}: use small, encodec or the path of a codec's .safetensors file"
    )
