"""The systems of an evaluation: each turns an excerpt into an output in the target's register."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.evaluation.clips import Excerpt
from audio_diffusion_pytorch.evaluation.scores import noise_scores
from audio_diffusion_pytorch.evaluation.settings import CODEC, IDENTITY, MOVED, TRUTH, WARM
from audio_diffusion_pytorch.metrics.spectral import log_mel_distance
from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.models.networks import DEFAULT
from audio_diffusion_pytorch.pitch.octaves import shift_octaves
from audio_diffusion_pytorch.utils.devices import device_of
from audio_diffusion_pytorch.utils.hashing import digest, digest_of

VERSION = 8  # raise it when a system's output changes at the same settings

Output = tuple[Tensor, dict[str, Any]]  # sound [1, T], facts about its making


def digest_of_model(model: InstrumentModel) -> str:
    """Return a digest of the weights, the statistics and the spec that a bridge uses."""
    # The settings of a bridge contain what it uses of these.
    unused = (
        "handoff_sigma",
        "handoff_sigmas",
        "handoffs",
        "label_guidance",
        "pitch_range",
        "steps",
    )
    spec = {key: value for key, value in asdict(model.spec).items() if key not in unused}
    if spec["network"] == DEFAULT:  # stored scores of earlier versions have keys without it
        del spec["network"]
    return digest_of(model, spec)


class System:
    """Make outputs; base class of bridges, finished outputs and reference points.

    Attributes:
        name: name in tables; `label` adds the noise level to it if several levels are compared.
        sigma: noise level of the hand-off; None for systems without one.
        swept: whether several noise levels are compared.
        reference: whether the system is a reference point.
        stored: whether outputs are stored, because making them takes time.
        moved: whether the excerpt must be moved into the target's register.
        shifts: whether `make` moves the excerpt itself.
        about: facts for every row of the results (steps, solver ...).
        settings: everything besides the excerpt that the output depends on.
    """

    name: str
    sigma: float | None = None
    swept: bool = False
    reference: bool = True
    stored: bool = True
    moved: bool = True
    shifts: bool = False
    about: Mapping[str, Any] = {}
    settings: Mapping[str, Any] = {}

    @property
    def label(self) -> str:
        """Name in tables, with the noise level if several levels are compared."""
        return f"{self.name}, sigma {self.sigma:g}" if self.swept else self.name

    def make(self, wav: Tensor, excerpt: Excerpt, index: int, octaves: int = 0) -> Output:
        """Make the output of one excerpt.

        Args:
            wav: excerpt [1, T] at the evaluation's rate; in the target's register if the system is
                `moved` and does not shift.
            excerpt: excerpt of `wav`.
            index: number of the excerpt in its pair.
            octaves: octaves to the target's register, for a system that shifts.

        Returns:
            The output [1, T] and scores that only the system can measure.

        Raises:
            InputError: a file is damaged.
        """
        raise NotImplementedError


class Identity(System):
    """Return the excerpt in its own register."""

    name = IDENTITY
    stored = False
    moved = False

    def make(self, wav: Tensor, excerpt: Excerpt, index: int, octaves: int = 0) -> Output:
        """Return the excerpt; see `System.make`."""
        return wav, {}


class Moved(Identity):
    """Return the excerpt, moved by octaves into the target's range."""

    name = MOVED
    moved = True


class CodecOnly(System):
    """Encode and decode the excerpt.

    Args:
        codec: codec of the models.
    """

    name = CODEC

    def __init__(self, codec: Codec):
        self.codec = codec
        self.settings = {"codec": digest_of(codec)}

    @torch.inference_mode()
    def make(self, wav: Tensor, excerpt: Excerpt, index: int, octaves: int = 0) -> Output:
        """Encode and decode the excerpt; see `System.make`."""
        latents = self.codec.encode(wav[None].to(device_of(self.codec)))
        return self.codec.decode(latents, wav.shape[-1])[0].cpu(), {}


class Truth(System):
    """Read the same performance on the target instrument, for excerpts that have one.

    Args:
        sample_rate: rate of the evaluation in Hz.
    """

    name = TRUTH
    stored = False

    def __init__(self, sample_rate: int):
        self.sample_rate = sample_rate

    def make(self, wav: Tensor, excerpt: Excerpt, index: int, octaves: int = 0) -> Output:
        """Read the true performance; see `System.make`."""
        assert excerpt.truth is not None
        return read_excerpt(excerpt.truth.path, excerpt, self.sample_rate), {}


class Finished(System):
    """Read finished outputs of another system.

    Args:
        name: name in tables.
        outputs: path of each input -> path of its output, both of one length.
        sample_rate: rate of the evaluation in Hz.
    """

    reference = False
    stored = False

    def __init__(self, name: str, outputs: Mapping[Path, Path], sample_rate: int):
        self.name = name
        self.outputs = outputs
        self.sample_rate = sample_rate

    def make(self, wav: Tensor, excerpt: Excerpt, index: int, octaves: int = 0) -> Output:
        """Read the finished output; see `System.make`."""
        return read_excerpt(self.outputs[excerpt.recording.path], excerpt, self.sample_rate), {}


class _Observed(Bridge):
    """Bridge that keeps the noise between its models in `noise`, channel after channel."""

    noise: list[Tensor]

    def to_noise(self, latents: Tensor, melody: Tensor | None = None) -> Tensor:
        noise = super().to_noise(latents, melody)
        self.noise = [*getattr(self, "noise", []), *noise.cpu()]
        return noise


class BridgeSystem(System):
    """Run a bridge.

    Args:
        name: name in tables.
        source: model of the source instrument.
        target: model of the target instrument.
        cycle_clips: excerpts of a pair that are also bridged back, which takes as long again.
        swept: whether several noise levels are compared.
        options: passed to `Bridge`.

    Raises:
        InputError: the models do not support the options.
    """

    reference = False
    shifts = True

    def __init__(
        self,
        name: str,
        source: InstrumentModel,
        target: InstrumentModel,
        cycle_clips: int,
        swept: bool = False,
        **options: Any,
    ):
        self.name = name
        self.cycle_clips = cycle_clips
        self.swept = swept
        self.sample_rate = options["codec"].sample_rate
        self.bridge = _Observed(source, target, **options)
        self.sigma = self.bridge.sigma
        # only the way from source to target needs "matched": the source may lack the statistics
        handoff = options.get("handoff", "auto") if source.spec.noise else "auto"
        back = {**options, "sigma": self.bridge.sigma, "handoff": handoff}
        back["melody"] = any(self.bridge.melody.given)
        if not source.spec.melody_channels:
            back["melody_guidance"] = 1.0
        self.back = Bridge(target, source, **back)
        schedule = self.bridge.sigmas.tolist()
        self.about = {
            "num_steps": len(schedule),
            "solver": self.bridge.solver,
            "evaluations": self.bridge.num_evaluations,
            "schedule": self.bridge.schedules.path,
        }
        self.settings = {
            "bridge": [
                digest_of_model(source),
                digest_of_model(target),
                digest_of(self.bridge.codec),
            ],
            "sigmas": schedule,
            "solver": self.bridge.solver,
            "handoff": self.bridge.handoff,
            **self.bridge.schedules.settings,
            **self.bridge.melody_settings,
        }
        label = self.back.melody.unlabelled
        if cycle_clips and label is not None:
            self.settings["back"] = [self.back.melody.label_guidance, label.digest]

    @torch.inference_mode()
    def make(self, wav: Tensor, excerpt: Excerpt, index: int, octaves: int = 0) -> Output:
        """Bridge the excerpt; the facts are the speed, and scores of noise and way back."""
        self.bridge.noise = []
        started = time.perf_counter()
        out = self.bridge(wav, self.sample_rate, octaves=octaves)
        seconds = time.perf_counter() - started
        scores: dict[str, Any] = {"seconds_per_second": seconds / excerpt.seconds}
        if self.bridge.noise:  # silent windows bypass the models
            noise = torch.cat(self.bridge.noise, -1)
            scores |= noise_scores(noise, self.bridge.sigma, self.bridge.source.spec.sigma_data)
        if index < self.cycle_clips:
            scores |= self._cycle(shift_octaves(wav, octaves, self.sample_rate))
        return out, scores

    def _cycle(self, wav: Tensor) -> dict[str, float]:
        """Bridge the first window of wav [1, T] to the target and back.

        Returns:
            cycle_latent: root mean square error of the latents, in standard deviations of the
                source's latents.
            cycle_log_mel: log-mel distance between both decoded sets of latents.
        """
        bridge = self.bridge
        codec = bridge.codec
        level = audio.active_rms(wav, self.sample_rate)
        expected = bridge.source.spec.level_db
        gain = 1.0 if expected is None else 10 ** (expected / 20) / max(level, 1e-8)
        length = int(bridge.window * codec.hop_length)
        first = wav[:, :length]
        first = nn.functional.pad(first, (0, length - first.shape[-1]))
        z = codec.encode((first * gain)[None].to(bridge.source.mean.device))
        melody = bridge.melody_of(first * gain)
        everywhere = torch.ones_like(z[:, 0])
        again = z
        for way in (bridge, self.back):
            noise = way.hand_over(way.to_noise(again, melody), everywhere)
            again = way.from_noise(noise, melody)
        error = bridge.source.normalise(again) - bridge.source.normalise(z)
        before, after = (codec.decode(latents)[:, 0].cpu() for latents in (z, again))
        return {
            "cycle_latent": float(error.square().mean().sqrt()),
            "cycle_log_mel": float(log_mel_distance(before, after, self.sample_rate)),
        }


class SeededTarget(System):
    """A system of the target's model and seeded noise, without a source model.

    Args:
        bridge: bridge from the target to itself.
        target: model of the target instrument.
        seed: seed of the noise.
        kind: key of the models' hashes in the settings.
    """

    def __init__(self, bridge: Bridge, target: InstrumentModel, seed: int, kind: str):
        self.bridge = bridge
        self.seed = seed
        self.sigma = bridge.sigma
        schedule = bridge.sigmas.tolist()
        self.about = {
            "num_steps": len(schedule),
            "solver": bridge.solver,
            "evaluations": bridge.count_evaluations(1),
            "schedule": bridge.schedules.path,
        }
        self.settings = {
            kind: [digest_of_model(target), digest_of(bridge.codec)],
            "sigmas": schedule,
            "solver": bridge.solver,
            "seed": seed,
            **bridge.schedules.settings,
            **bridge.melody.settings,
        }

    def seed_of(self, excerpt: Excerpt) -> int:
        """Return the seed of an excerpt, which follows from its name."""
        return int(digest(self.seed, excerpt.name)[:15], 16)


class WarmStart(SeededTarget):
    """Add noise to the excerpt's latents and denoise them with the target's model; no source model.

    The target's statistics normalise the latents, because the source's statistics belong to its
    model.

    Args:
        target: model of the target instrument.
        seed: seed of the noise.
        swept: whether several noise levels are compared.
        options: passed to `Bridge`.
    """

    name = WARM
    bridge: "_Warm"

    def __init__(self, target: InstrumentModel, seed: int, swept: bool = False, **options: Any):
        super().__init__(_Warm(target, target, **options), target, seed, "warm")
        self.swept = swept
        self.sample_rate = self.bridge.codec.sample_rate

    def make(self, wav: Tensor, excerpt: Excerpt, index: int, octaves: int = 0) -> Output:
        """Denoise the noisy excerpt; the seed of its noise follows from the excerpt's name."""
        self.bridge.generator = torch.Generator().manual_seed(self.seed_of(excerpt))
        started = time.perf_counter()
        out = self.bridge(wav, self.sample_rate, octaves=0)
        return out, {"seconds_per_second": (time.perf_counter() - started) / excerpt.seconds}


class _Warm(Bridge):
    """A bridge that adds noise instead of running the source's model."""

    generator: torch.Generator

    def to_noise(self, latents: Tensor, melody: Tensor | None = None) -> Tensor:
        noise = torch.randn(latents.shape, generator=self.generator).to(latents.device)
        return self.target.normalise(latents) + self.sigma * noise


def read_excerpt(path: Path, excerpt: Excerpt, sample_rate: int) -> Tensor:
    """Read an excerpt from a file, mixed to mono.

    Args:
        path: file of the recording, or of another file of the same length.
        excerpt: start and length.
        sample_rate: rate of the result in Hz.

    Returns:
        The excerpt [1, T]; T depends on the excerpt's length and `sample_rate` only.

    Raises:
        InputError: the file is damaged or is not audio.
    """
    header = audio.info(path)
    start = min(round(excerpt.start * header.sample_rate), header.frames)
    frames = min(round(excerpt.seconds * header.sample_rate), header.frames - start)
    wav, rate = audio.read_mono(path, start, frames)
    wav = audio.resample(wav, rate, sample_rate)
    length = round(excerpt.seconds * sample_rate)
    return nn.functional.pad(wav, (0, max(0, length - wav.shape[-1])))[:, :length]
