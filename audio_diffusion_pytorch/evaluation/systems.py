"""What is evaluated, and what it is measured against: each turns an input into an output in the target's register."""

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
from audio_diffusion_pytorch.pitch.octaves import shift_octaves
from audio_diffusion_pytorch.utils.hashing import digest, digest_of

VERSION = 5  # raise it when a system gives another sound at the same settings


def digest_of_model(model: InstrumentModel) -> str:
    """A short name for weights, statistics and everything of the spec that a bridge uses."""
    unused = ("handoff_sigma", "handoff_sigmas", "handoffs", "pitch_range", "steps")
    return digest_of(model, {k: v for k, v in asdict(model.spec).items() if k not in unused})


class System:
    """Makes outputs.

    name: for tables; its `label` adds the hand-off noise level `sigma` where several are `swept`.
    reference: what others are measured against.
    stored: making takes time, so that outputs are kept.
    moved: it is given the input in the target's register.
    shifts: it moves the input there itself: `make` takes the input as it is, and the octaves.
    about: facts for every row (steps, solver ...).
    settings: what the sound depends on.
    """

    name: str
    sigma: float | None = None
    swept = False
    reference = True
    stored = True
    moved = True
    shifts = False
    about: Mapping[str, Any] = {}
    settings: Mapping[str, Any] = {}

    @property
    def label(self) -> str:
        return f"{self.name}, sigma {self.sigma:g}" if self.swept else self.name

    def make(self, wav: Tensor, excerpt: Excerpt, index: int) -> tuple[Tensor, dict[str, Any]]:
        """The output of one clip.

        Args:
            wav: [1, T] at the evaluation's rate, moved to the target's register.
            index: number of the clip in its pair.

        Returns:
            [1, T] and scores that only the making can tell.
        """
        raise NotImplementedError


class Identity(System):
    """The input itself, in its own register."""

    name, stored, moved = IDENTITY, False, False

    def make(self, wav: Tensor, excerpt: Excerpt, index: int) -> tuple[Tensor, dict[str, Any]]:
        return wav, {}


class Moved(Identity):
    """The input, moved by octaves into the target's range."""

    name, moved = MOVED, True


class CodecOnly(System):
    """The input through the codec and back."""

    name = CODEC

    def __init__(self, codec: Codec):
        self.codec, self.settings = codec, {"codec": digest_of(codec)}

    @torch.inference_mode()
    def make(self, wav: Tensor, excerpt: Excerpt, index: int) -> tuple[Tensor, dict[str, Any]]:
        device = next(self.codec.parameters()).device
        return self.codec.decode(self.codec.encode(wav[None].to(device)), wav.shape[-1])[
            0
        ].cpu(), {}


class Truth(System):
    """The same performance on the target instrument; only for excerpts that have one."""

    name, stored = TRUTH, False

    def __init__(self, sample_rate: int):
        self.sample_rate = sample_rate

    def make(self, wav: Tensor, excerpt: Excerpt, index: int) -> tuple[Tensor, dict[str, Any]]:
        return read_excerpt(excerpt.truth.path, excerpt, self.sample_rate), {}


class Finished(System):
    """Outputs that lie in a folder.

    Args:
        outputs: path of the input -> path of the output, both of one length.
    """

    reference = stored = False

    def __init__(self, name: str, outputs: Mapping[Path, Path], sample_rate: int):
        self.name, self.outputs, self.sample_rate = name, outputs, sample_rate

    def make(self, wav: Tensor, excerpt: Excerpt, index: int) -> tuple[Tensor, dict[str, Any]]:
        """
        Raises:
            InputError: the file is damaged.
        """
        return read_excerpt(self.outputs[excerpt.recording.path], excerpt, self.sample_rate), {}


class _Observed(Bridge):
    """A bridge that keeps the noise in the middle: one window of one channel after another, in `noise`."""

    def to_noise(self, latents: Tensor) -> Tensor:
        noise = super().to_noise(latents)
        self.noise = [*getattr(self, "noise", []), *noise.cpu()]
        return noise


class BridgeSystem(System):
    """The bridge, on the spot.

    Args:
        cycle_clips: clips of a pair that also go back to the source, which takes as long again.
        swept: the hand-off level is one of several.
        options: of `Bridge`.
    """

    reference, shifts = False, True

    def __init__(
        self,
        name: str,
        source: InstrumentModel,
        target: InstrumentModel,
        cycle_clips: int,
        swept: bool = False,
        **options: Any,
    ):
        self.name, self.cycle_clips, self.sample_rate = (
            name,
            cycle_clips,
            options["codec"].sample_rate,
        )
        self.bridge = _Observed(source, target, **options)
        handoff = (
            options.get("handoff", "auto") if source.spec.noise else "auto"
        )  # only the way there needs "matched"
        self.back = Bridge(
            target, source, **{**options, "sigma": self.bridge.sigma, "handoff": handoff}
        )
        self.sigma, self.swept, schedule = self.bridge.sigma, swept, self.bridge.sigmas.tolist()
        self.about = {
            "num_steps": len(schedule),
            "solver": self.bridge.solver,
            "evaluations": self.bridge.evaluations,
        }
        self.settings = {
            "bridge": [
                digest_of_model(source),
                digest_of_model(target),
                digest_of(self.bridge.codec),
            ],
            **{"sigmas": schedule, "solver": self.bridge.solver, "handoff": self.bridge.handoff},
        }

    @torch.inference_mode()
    def make(
        self, wav: Tensor, excerpt: Excerpt, index: int, octaves: int = 0
    ) -> tuple[Tensor, dict[str, Any]]:
        self.bridge.noise, started = [], time.perf_counter()
        out = self.bridge(wav, self.sample_rate, octaves=octaves)
        scores: dict[str, Any] = {
            "seconds_per_second": (time.perf_counter() - started) / excerpt.seconds
        }
        if self.bridge.noise:  # a silent clip has none
            noise = torch.cat(self.bridge.noise, -1)
            scores |= noise_scores(noise, self.sigma, self.bridge.source.spec.sigma_data)
        if index < self.cycle_clips:
            scores |= self._cycle(shift_octaves(wav, octaves, self.sample_rate))
        return out, scores

    def _cycle(self, wav: Tensor) -> dict[str, float]:
        """There and back again, with the first window of wav [1, T].

        cycle_latent: root mean square error of the latents, in standard deviations of the source's.
        cycle_log_mel: log-mel distance of both sets of latents, decoded.
        """
        bridge, codec = self.bridge, self.bridge.codec
        level, expected = audio.active_rms(wav, self.sample_rate), bridge.source.spec.level_db
        gain = 1.0 if expected is None else 10 ** (expected / 20) / max(level, 1e-8)
        first = wav[:, : bridge.window * codec.hop_length]
        first = nn.functional.pad(first, (0, bridge.window * codec.hop_length - first.shape[-1]))
        z = codec.encode((first * gain)[None].to(bridge.source.mean.device))
        everywhere = torch.ones_like(z[:, 0])
        there = bridge.from_noise(bridge.hand_over(bridge.to_noise(z), everywhere))
        again = self.back.from_noise(self.back.hand_over(self.back.to_noise(there), everywhere))
        error = bridge.source.normalise(again) - bridge.source.normalise(z)
        before, after = (codec.decode(latents)[:, 0].cpu() for latents in (z, again))
        return {
            "cycle_latent": float(error.square().mean().sqrt()),
            "cycle_log_mel": float(log_mel_distance(before, after, self.sample_rate)),
        }


class WarmStart(System):
    """Noise at the hand-off level added to the input's latents, and the target model run down: no source model.

    The latents are normalised by the target's statistics, for the source's are not known without its model.

    Args:
        swept: the hand-off level is one of several.
        options: of `Bridge`.
    """

    name = WARM

    def __init__(self, target: InstrumentModel, seed: int, swept: bool = False, **options: Any):
        self.bridge = _Warm(target, target, **options)
        self.seed, self.sample_rate = seed, self.bridge.codec.sample_rate
        self.sigma, self.swept, schedule = self.bridge.sigma, swept, self.bridge.sigmas.tolist()
        self.about = {
            "num_steps": len(schedule),
            "solver": self.bridge.solver,
            "evaluations": self.bridge.evaluations // 2,
        }
        self.settings = {
            "warm": [digest_of_model(target), digest_of(self.bridge.codec)],
            **{"sigmas": schedule, "solver": self.bridge.solver, "seed": seed},
        }

    def make(self, wav: Tensor, excerpt: Excerpt, index: int) -> tuple[Tensor, dict[str, Any]]:
        seed = int(digest(self.seed, excerpt.name)[:15], 16)
        self.bridge.generator, started = torch.Generator().manual_seed(seed), time.perf_counter()
        out = self.bridge(wav, self.sample_rate, octaves=0)
        return out, {"seconds_per_second": (time.perf_counter() - started) / excerpt.seconds}


class _Warm(Bridge):
    """A bridge whose way up is adding noise."""

    generator: torch.Generator

    def to_noise(self, latents: Tensor) -> Tensor:
        noise = torch.randn(latents.shape, generator=self.generator).to(latents.device)
        return self.target.normalise(latents) + self.sigma * noise


def read_excerpt(path: Path, excerpt: Excerpt, sample_rate: int) -> Tensor:
    """The excerpt's part of a file -> mono [1, T] at sample_rate, T the same for every excerpt of as many seconds.

    Raises:
        InputError: the file is damaged or no audio.
    """
    header = audio.info(path)
    start = min(round(excerpt.start * header.sample_rate), header.frames)
    frames = min(round(excerpt.seconds * header.sample_rate), header.frames - start)
    wav, rate = audio.read_mono(path, start, frames)
    wav, length = audio.resample(wav, rate, sample_rate), round(excerpt.seconds * sample_rate)
    return nn.functional.pad(wav, (0, max(0, length - wav.shape[-1])))[:, :length]
