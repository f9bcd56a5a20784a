"""Send configuration and audio to loggers."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pytorch_lightning.loggers import Logger
from torch import Tensor
from torch.utils.tensorboard.summary import hparams

from audio_diffusion_pytorch.plots import mel_spectrogram_db


def log_config(loggers: Iterable[Logger], config: Mapping[str, Any], text: str) -> None:
    """Log the resolved configuration as hyper-parameters, on TensorBoard also as text.

    Lightning's method for TensorBoard also writes a first value of a metric, which would appear in
    its curve.

    Args:
        loggers: loggers of the run.
        config: resolved configuration.
        text: the configuration in YAML.
    """
    for logger in loggers:
        experiment = getattr(logger, "experiment", None)
        if not hasattr(experiment, "add_text"):
            logger.log_hyperparams(config)
            continue
        experiment.add_text("config", f"```yaml\n{text}\n```")
        for part in hparams(dict(_flat(config)), {"valid_loss": 0.0}):
            experiment._get_file_writer().add_summary(part)


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float | str | bool]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, (bool, int, float, str)) else str(value)


def shows_sound(logger: Logger) -> bool:
    """Return whether `log_sound` supports this logger."""
    return hasattr(logger, "log_audio") or hasattr(getattr(logger, "experiment", None), "add_audio")


def log_sound(
    loggers: Iterable[Logger], tag: str, wav: Tensor, sample_rate: int, step: int
) -> None:
    """Log audio and its mel spectrogram to TensorBoard and Weights & Biases.

    Args:
        loggers: loggers of the run.
        tag: name in the logs.
        wav: audio [1, T] in [-1, 1].
        sample_rate: rate of the audio in Hz.
        step: optimiser step.
    """
    wav = wav.float().cpu().clamp(-1, 1)
    picture = ((mel_spectrogram_db(wav[0], sample_rate)[::-1] + 90) / 80).clip(0, 1)
    for logger in loggers:
        if hasattr(logger, "log_audio"):
            logger.log_audio(tag, [wav[0].numpy()], sample_rate=[sample_rate])
            logger.log_image(f"{tag}_mel", [picture])
        elif shows_sound(logger):
            logger.experiment.add_audio(tag, wav, step, sample_rate)
            logger.experiment.add_image(tag, picture.copy(), step, dataformats="HW")
