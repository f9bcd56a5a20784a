"""Codecs by name or file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.codecs.encodec import EncodecCodec
from audio_diffusion_pytorch.codecs.mel import MelCodec
from audio_diffusion_pytorch.paths import ASSETS
from audio_diffusion_pytorch.utils.registry import Registry
from audio_diffusion_pytorch.utils.settings import nearest_hint, wrong


def load_small_codec(**unused: Any) -> MelCodec:
    """Load the shipped mel codec; the options of EnCodec do not apply to it."""
    return MelCodec.load(ASSETS / "codec_small.safetensors")


CODECS: Registry[Callable[..., Codec]] = Registry(
    "codec", {"small": load_small_codec, "encodec": EncodecCodec}
)


def load_codec(name: str | Path = "small", **kwargs: Any) -> Codec:
    """Load a codec and freeze it.

    Args:
        name: name in `CODECS`, or the path of a mel codec's .safetensors file.
        kwargs: arguments of the named codec, for example of `EncodecCodec`.

    Raises:
        InputError: the name is unknown, or the weights cannot be loaded.
    """
    if str(name) in CODECS:
        return CODECS[str(name)](**kwargs).freeze()
    if Path(name).suffix == ".safetensors":
        return MelCodec.load(name).freeze()
    hint = nearest_hint(str(name), CODECS)
    raise wrong(
        "codec", str(name), f"one of {', '.join(CODECS)}, or a .safetensors file", hint=hint
    )
