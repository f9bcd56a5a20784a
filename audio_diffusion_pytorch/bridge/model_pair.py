"""Two instrument models, joined at a hand-off noise level: map latents and windows."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor

from audio_diffusion_pytorch.bridge.framing import Framing
from audio_diffusion_pytorch.bridge.handoff import interpolate_statistics, match_moments
from audio_diffusion_pytorch.bridge.precision import at_precision, choose_dtype
from audio_diffusion_pytorch.bridge.schedules import choose_schedules
from audio_diffusion_pytorch.bridge.settings import BridgeSettings
from audio_diffusion_pytorch.bridge.vibrato import straighten
from audio_diffusion_pytorch.bridge.windows import Window
from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
from audio_diffusion_pytorch.diffusion.sampling import SOLVERS
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.fitted_schedules import DIRECTIONS
from audio_diffusion_pytorch.models.instrument import InstrumentModel, select_condition
from audio_diffusion_pytorch.models.loading import (
    load_instrument,
    require_one_codec,
    require_one_instrument,
    shared_codec,
)
from audio_diffusion_pytorch.pitch.melody_input import drop_unpitched, melody_input, move_melody
from audio_diffusion_pytorch.utils.iterables import batches
from audio_diffusion_pytorch.utils.threads import map_rows

# Standard deviations: training latents never exceed this, so decoders are undefined beyond it.
LATENT_LIMIT = 6.0

Owner = TypeVar("Owner")
Self = TypeVar("Self", bound="ModelPair")


class ModelPair:
    """Map latents of the source instrument to latents of the target instrument.

    `Bridge` extends the class from latents and windows to recordings, and describes the arguments.
    """

    def __init__(
        self,
        source: InstrumentModel | str | Path,
        target: InstrumentModel | str | Path,
        sigma: float | None = None,
        num_steps: int | None = None,
        solver: str | None = None,
        sigma_min: float | None = None,
        rho: float | None = None,
        quality: str = "normal",
        handoff: str = "auto",
        batch_size: int = 4,
        codec: Codec | None = None,
        device: str | torch.device = "cpu",
        precision: str | int = "auto",
        compile: bool = False,
        melody: bool | str = "auto",
        melody_guidance: float | str = "auto",
        vibrato: bool = True,
    ):
        # varied: inputs from any room and microphone; plain: outputs like clean recordings.
        self.source = select_condition(load_instrument(source, device), "varied")
        self.target = select_condition(load_instrument(target, device), "plain")
        models = self.source, self.target
        for model in models:
            require_one_instrument(model)
        require_one_codec(*models)
        self.codec = (shared_codec(*models) if codec is None else codec).to(device)
        if self.codec.latent_channels != len(self.source.mean):
            raise InputError(
                f"the codec has {self.codec.latent_channels} channels, "
                f"the models {len(self.source.mean)}"
            )
        requested = BridgeSettings(
            sigma,
            num_steps,
            solver,
            sigma_min,
            rho,
            quality,
            handoff,
            batch_size,
            melody,
            melody_guidance,
            vibrato,
        )
        self._configure(requested)
        # Windows hold a whole number of the coarsest network's frames.
        factor = max(cast(int, model.denoiser.net.downsample_factor) for model in models)
        self.downsample_factor = factor
        self.window: int = -(-min(model.spec.frames for model in models) // factor) * factor
        self.hop = self.window * 3 // 4
        self._compiled = compile
        self._dtype = choose_dtype(precision, torch.device(device))
        self.denoisers = [at_precision(model.denoiser, self._dtype, compile) for model in models]
        self.prepared: dict[Denoiser, Denoiser] = {}  # bridges at other levels share them

    def _configure(self, requested: BridgeSettings) -> None:
        """Resolve the settings; set the schedule, the solver and the target's statistics."""
        bands = self.codec.has_frequency_bands
        resolved = requested.resolve(self.source.spec, self.target.spec, bands)
        self._requested = requested
        self.sigma = resolved.sigma
        self.rho = resolved.rho
        self.solver = resolved.solver
        self.handoff = resolved.handoff
        self.schedules = choose_schedules(resolved, self.source, self.target)
        self.melody = resolved.melody.by(self.target, self.schedules.students[1])
        self.solve = SOLVERS.find(resolved.solver)
        # The movement of the pitch comes from the melody.
        self.vibrato = requested.vibrato and any(self.melody.given)
        self.batch_size = requested.batch_size
        if self.handoff == "matched":
            self._statistics = interpolate_statistics(self.target.spec.noise, self.sigma)

    @property
    def sigmas(self) -> Tensor:
        """Falling noise levels of the target's half."""
        return self.schedules.to_data

    @property
    def device(self) -> torch.device:
        """Device of the models."""
        return self.source.mean.device

    @property
    def framing(self) -> Framing:
        """Window size, codec and level, for cutting and joining recordings."""
        return Framing(self.codec, self.window, self.hop, self.source.spec.level_db, self.device)

    @property
    def settings(self) -> dict[str, float | str]:
        """Settings that determine the output, besides models, codec and recording."""
        return {
            "sigma": self.sigma,
            "sigma_min": float(self.sigmas[-1]),
            "rho": self.rho,
            "num_steps": len(self.sigmas),
            "solver": self.solver,
            "handoff": self.handoff,
            **self.schedules.settings,
            **self.melody_settings,
        }

    @property
    def melody_settings(self) -> dict[str, float | str]:
        """Part of the settings; finished transfers of older versions, without a melody, hold."""
        if not any(self.melody.given):
            return self.melody.settings
        rounds = self.codec.phase_rounds
        return {**self.melody.settings, "vibrato": self.vibrato, "phase_rounds": rounds}

    def to(self: Self, device: str | torch.device) -> Self:
        """Move models and codec in place, also for other bridges that share them."""
        made = *self.networks, *self.prepared.values()
        for module in (self.source, self.target, self.codec, *made):
            module.to(device)
        return self

    @property
    def networks(self) -> list[Denoiser]:
        """Denoisers of the bridge, also teachers of students."""
        found = [*self.denoisers, *map(self.student_denoiser, range(2)), self.unlabelled]
        return [net for net in found if net is not None]

    def with_sigma(self: Self, sigma: float) -> Self:
        """Return a bridge with another hand-off noise level that shares models and codec."""
        other = copy.copy(self)
        other.__dict__.pop("num_evaluations", None)  # it depends on the level
        other._configure(replace(self._requested, sigma=sigma, batch_size=self.batch_size))
        return other

    at = with_sigma  # name before 0.2

    @torch.inference_mode()
    def to_noise(self, latents: Tensor, melody: Tensor | None = None) -> Tensor:
        """Map codec latents of the source to noise at the hand-off sigma.

        Args:
            latents: [B, D, L].
            melody: output of `melody_of` [B, M, L]; None: without melody.

        Returns:
            Noise [B, D, L].
        """
        return self._solve(0, self.source.normalise(latents), self.schedules.to_noise, melody)

    @torch.inference_mode()
    def from_noise(self, noise: Tensor, melody: Tensor | None = None) -> Tensor:
        """Map noise at the hand-off sigma to codec latents of the target.

        Args:
            noise: [B, D, L].
            melody: output of `melody_of` [B, M, L]; None: without melody.

        Returns:
            Latents [B, D, L].
        """
        latents = self._solve(1, noise, self.sigmas, melody)
        return self.target.denormalise(latents.clamp(-LATENT_LIMIT, LATENT_LIMIT))

    @torch.inference_mode()
    def melody_of(self, wav: Tensor) -> Tensor | None:
        """Compute the melody of sounds, as input of `to_noise` and `from_noise`.

        Args:
            wav: [B, T] at the codec's rate.

        Returns:
            Pitch posteriors [B, M, L], see `melody_input`; None if neither model receives them.
        """
        if not any(self.melody.given):
            return None
        return melody_input(wav.to(self.device), self.codec.sample_rate, self.codec.hop_length)

    def _solve(self, index: int, x: Tensor, sigmas: Tensor, melody: Tensor | None) -> Tensor:
        """Solve the ODE of the source (0) or the target (1) for x [B, D, L]."""
        solver = self.schedules.solver(index, self.solve)

        def solve(rows: Tensor, melody: Tensor | None = None) -> Tensor:
            denoiser = self.student_denoiser(index)
            if denoiser is None:
                denoise = self.conditioned(index, melody)
            else:  # a student was taught to end at the last level
                given = self.melody.conditions(index, denoiser, melody)
                denoise = partial(denoiser, end=sigmas[-1:].to(rows), **given)
            return solver(denoise, rows, sigmas)

        if self._compiled:  # a compiled network has one batch size
            return solve(x, melody)
        return map_rows(solve, x, *([] if melody is None else [melody]))

    def conditioned(self, index: int, melody: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the denoiser of the source (0) or the target (1) for a melody [B, M, L]."""
        return self.melody.denoiser(index, self.denoisers[index], melody, self.unlabelled)

    @property
    def unlabelled(self) -> Denoiser | None:
        """Denoiser without a label, for the guidance; None: the guidance has no label."""
        found = self.melody.unlabelled
        return None if found is None else self._prepare(found.denoiser)

    def student_denoiser(self, index: int) -> Denoiser | None:
        """Return the student's denoiser of the source (0) or the target (1), if it has one."""
        student = self.schedules.students[index]
        return None if student is None else self._prepare(student.denoisers[DIRECTIONS[index]])

    def _prepare(self, denoiser: Denoiser) -> Denoiser:
        """Return a denoiser in the bridge's precision, on its device; make each one once."""
        if denoiser not in self.prepared:
            moved = denoiser.to(self.device)
            self.prepared[denoiser] = at_precision(moved, self._dtype, self._compiled)
        return self.prepared[denoiser]

    @torch.inference_mode()
    def hand_over(self, noise: Tensor, active: Tensor) -> Tensor:
        """Prepare the output of `to_noise` for `from_noise`.

        Args:
            noise: [B, D, L].
            active: [B, L] weight of the sound in each frame, 0 in silence.

        Returns:
            [B, D, L].
        """
        if self.handoff == "plain":
            return noise
        mean, std = self._statistics
        return match_moments(noise, active, mean.to(noise.device), std.to(noise.device))

    def bridge_windows(
        self, windows: Iterable[tuple[Owner, Window]]
    ) -> Iterator[tuple[Owner, Window, Tensor]]:
        """Bridge windows, each with an owner of any type; yield each with its latents [D, L]."""
        return chain.from_iterable(self.bridge_batches(windows))

    @torch.inference_mode()
    def bridge_batches(
        self, windows: Iterable[tuple[Owner, Window]]
    ) -> Iterator[list[tuple[Owner, Window, Tensor]]]:
        """Bridge windows in lists.

        Each list holds `batch_size` windows, possibly of several recordings; silent windows bypass
        the networks.
        """
        for batch in batches(windows, self.batch_size):
            yield self.bridge_batch(batch)

    @torch.inference_mode()
    def bridge_batch(
        self, batch: Sequence[tuple[Owner, Window]]
    ) -> list[tuple[Owner, Window, Tensor]]:
        """Bridge some windows together, as `bridge_batches` does."""
        windows = [window for _, window in batch]
        played = [i for i, window in enumerate(windows) if window.played.any()]
        if played:
            found, melody = self.with_melody([windows[i] for i in played])
            for i, window in zip(played, found, strict=True):
                windows[i] = window
        latents = self.encode_windows(windows)
        if played:
            given = latents[played]
            noise = self.to_noise(given, melody)
            latents[played] = self._to_target(found, noise, given, melody)
        return [(o, *w) for (o, _), *w in zip(batch, windows, latents.cpu(), strict=True)]

    @cached_property
    def num_evaluations(self) -> int:
        """Network calls for one window, both ways."""
        return self.count_evaluations(0) + self.count_evaluations(1)

    def count_evaluations(self, index: int) -> int:
        """Return the network calls of the source (0) or the target (1) for one window."""
        calls = 0

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal calls
            calls += 1 + self.melody.extra_calls(index, sigma)
            return x

        sigmas = self.schedules.to_data if index else self.schedules.to_noise
        self.schedules.solver(index, self.solve)(denoise, torch.zeros(1, 1, 1), sigmas)
        return calls

    evaluations = property(lambda self: self.num_evaluations)  # name before 0.2

    def num_windows(self, length: int, sample_rate: float) -> int:
        """Return the windows of `length` samples at `sample_rate` Hz, per channel."""
        return self.framing.num_windows(length, sample_rate)

    def num_frames(self, length: int, sample_rate: float) -> int:
        """Return the latent frames of `length` samples at `sample_rate` Hz."""
        return self.framing.num_frames(length, sample_rate)

    def encode_windows(self, windows: Sequence[Window]) -> Tensor:
        """Return the codec latents [B, D, L] of the windows' sound."""
        return self._encode_sound([window.wav for window in windows])

    def _encode_sound(self, wavs: list[Tensor]) -> Tensor:
        return self.codec.encode(torch.stack(wavs)[:, None].to(self.device))

    def with_melody(self, windows: Sequence[Window]) -> tuple[list[Window], Tensor | None]:
        """Return windows without vibrato, and their melody [B, M + 1, L].

        The melody is dropped where nothing has a pitch.
        """
        # A move by octaves blurs the sound: short notes lose their pitch.
        sounds = [window.wav if window.unmoved is None else window.unmoved for window in windows]
        melody = self.melody_of(torch.stack(sounds))
        if melody is None:
            return list(windows), None
        moved = [
            move_melody(*one) for one in zip(melody, (w.octaves for w in windows), strict=True)
        ]
        melody = drop_unpitched(torch.stack(moved))
        if not self.vibrato:
            return list(windows), melody
        rate = self.codec.sample_rate
        straight = [straighten(*one, rate) for one in zip(windows, melody, strict=True)]
        return [window for window, _ in straight], torch.stack([one for _, one in straight])

    def _to_target(
        self,
        windows: Sequence[Window],
        noise: Tensor,
        source_latents: Tensor,
        melody: Tensor | None = None,
    ) -> Tensor:
        """Turn noise and latents of the source, both [B, D, L], into latents of the target.

        Frames of hiss or hum keep the source's latents: the models would play notes there.
        """
        played = torch.stack([window.played for window in windows]).to(self.device)
        latents = self.from_noise(self.hand_over(noise, played), melody)
        latents = self.codec.impose_levels(latents, self._levels(windows, source_latents))
        still = torch.stack([window.still for window in windows]).to(self.device)
        return torch.lerp(latents, source_latents, still[:, None])

    def _levels(self, windows: Sequence[Window], source_latents: Tensor) -> Tensor:
        """Return the log level of each frame [B, L], as it was before a move by octaves.

        A moved sound has other levels: its spectrum is another one, and its onsets are smeared.
        """
        levels = self.codec.frame_levels(source_latents)
        unmoved = {i: w.unmoved for i, w in enumerate(windows) if w.unmoved is not None}
        if unmoved:
            latents = self._encode_sound(list(unmoved.values()))
            levels[list(unmoved)] = self.codec.frame_levels(latents)
        return levels
