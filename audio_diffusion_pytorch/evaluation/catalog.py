"""The models and codecs of an evaluation, each loaded once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.codecs.loading import load_codec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation.settings import Models
from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.models.loading import load_instrument, shared_codec

SAMPLE_RATE = 24000  # Hz, of an evaluation without models


class ModelCatalog:
    """Load the models of several bridges, and remember the models and the failures.

    Args:
        bridges: name of each bridge -> its models.
        codec_options: passed to the loader of a codec.
        device: device of models and codecs.
    """

    def __init__(
        self,
        bridges: Mapping[str, Models],
        codec_options: Mapping[str, Any],
        device: str | torch.device,
    ):
        self.bridges = bridges
        self.codec_options = codec_options
        self.device = device
        self._models: dict[tuple[str, str], InstrumentModel | InputError] = {}
        self._codecs: dict[str, Codec] = {}

    def model(self, bridge: str, instrument: str) -> InstrumentModel:
        """Load one instrument's model of a bridge.

        Args:
            bridge: name of the bridge.
            instrument: name of the instrument.

        Returns:
            The model.

        Raises:
            InputError: the model is missing or cannot be read.
        """
        key = bridge, instrument
        if key not in self._models:
            try:
                self._models[key] = load_model(self.bridges[bridge], instrument, self.device)
            except InputError as error:
                self._models[key] = error
        found = self._models[key]
        if isinstance(found, InputError):
            raise found
        return found

    def shared_codec(self, source: InstrumentModel, target: InstrumentModel) -> Codec:
        """Return the codec of two models.

        Raises:
            InputError: the models have different codecs.
        """
        if source.codec is not None or target.codec is not None:
            return shared_codec(source, target, **self.codec_options)
        return self.codec(source.spec.codec)

    def codec(self, name: str) -> Codec:
        """Load a codec by its name.

        Raises:
            InputError: no codec has this name, or its weights are missing.
        """
        if name not in self._codecs:
            self._codecs[name] = load_codec(name, **self.codec_options).to(self.device)
        return self._codecs[name]

    def sample_rate(self, pairs: Sequence[tuple[str, str]]) -> int:
        """Return the sample rate that all bridges share, in Hz.

        Args:
            pairs: pairs of the evaluation.

        Raises:
            InputError: two bridges have different sample rates.
        """
        rates = {}
        for bridge in self.bridges:
            rate = self._sample_rate(bridge, pairs)
            if rate is not None:
                rates[bridge] = rate
        if len(set(rates.values())) > 1:
            raise InputError(
                f"models of different sample rates cannot be compared in one table: {rates}"
            )
        return next(iter(rates.values()), SAMPLE_RATE)

    def _sample_rate(self, bridge: str, pairs: Sequence[tuple[str, str]]) -> int | None:
        """Sample rate of the first pair with both models; None without such a pair."""
        for source, target in pairs:
            try:
                codec = self.shared_codec(self.model(bridge, source), self.model(bridge, target))
            except InputError:
                continue  # becomes a problem when the systems of this pair are made
            return codec.sample_rate
        return None


def load_model(models: Models, instrument: str, device: str | torch.device) -> InstrumentModel:
    """Load one instrument's model from a value of `models=`.

    Args:
        models: None for the shipped models; a mapping from instruments to arguments of
            `load_instrument`; a folder of INSTRUMENT.safetensors files; or a model of several
            instruments.
        instrument: name of the instrument.
        device: device of the model.

    Returns:
        The model.

    Raises:
        InputError: the model is missing or cannot be read.
    """
    name = instrument.replace(" ", "_")
    if models is None:
        return load_instrument(name, device)
    if isinstance(models, Mapping):
        given = {str(key).replace("_", " "): value for key, value in models.items()}
        if instrument not in given:
            raise InputError(f"models= has no model of {instrument}, only of {', '.join(given)}")
        return load_instrument(given[instrument], device)
    folder = Path(models)
    if folder.is_dir():
        for file in (folder / f"{name}.safetensors", folder / f"{instrument}.safetensors"):
            if file.is_file():
                return load_instrument(file, device)
        if not (folder / "checkpoints").is_dir():
            raise InputError(f"no {name}.safetensors in the folder {models}")
    return _load_labelled(models, instrument, device)


def _load_labelled(
    models: str | Path, instrument: str, device: str | torch.device
) -> InstrumentModel:
    """Load one instrument's part of a model of several, whose labels may have underscores."""
    try:
        return load_instrument(f"{models}:{instrument}", device)
    except InputError:
        name = instrument.replace(" ", "_")
        if name == instrument:
            raise
        return load_instrument(f"{models}:{name}", device)
