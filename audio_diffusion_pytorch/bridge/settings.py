"""Settings of a bridge: validate the requested ones and derive the others from the models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from audio_diffusion_pytorch.bridge.handoff import HANDOFFS
from audio_diffusion_pytorch.bridge.melody_use import MelodyUse
from audio_diffusion_pytorch.bridge.presets import QUALITY, Quality
from audio_diffusion_pytorch.diffusion.sampling import SOLVERS, karras_schedule
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.settings import check_choice, check_number, check_switch

if TYPE_CHECKING:
    from torch import Tensor

    from audio_diffusion_pytorch.models.instrument import InstrumentSpec


@dataclass(frozen=True)
class ResolvedSettings:
    """Settings that determine the output of a bridge between two given models.

    Args:
        sigma: hand-off noise level.
        sigma_min: noise level at the data end of the schedule.
        rho: spacing of the schedule.
        num_steps: points of the schedule of each half.
        solver: name in `SOLVERS`.
        handoff: "plain" or "matched".
        melody: use of the models' melody inputs.
        fitted: points of fitted solvers that may take the place of the schedule; None: none may.
        quality: preset, for messages.
        student: students may replace the models.
        melody_guidance: requested weight of the guidance, a number or "auto".
    """

    sigma: float
    sigma_min: float
    rho: float
    num_steps: int
    solver: str
    handoff: str
    melody: MelodyUse
    fitted: int | None = None
    student: bool = False
    melody_guidance: float | str = "auto"
    quality: str = "normal"

    @property
    def schedule(self) -> Tensor:
        """Noise levels [num_steps], from `sigma` down to `sigma_min`."""
        return karras_schedule(self.sigma_min, self.sigma, self.rho, self.num_steps)


@dataclass(frozen=True)
class BridgeSettings:
    """Requested settings of a bridge; None selects a default.

    Args:
        sigma: hand-off noise level; None: the target's default for the source.
        num_steps: points of the schedule of each half; None: the preset's.
        solver: name in `SOLVERS`; None: the preset's.
        sigma_min: noise level at the data end of the schedule; None: the preset's.
        rho: spacing of the schedule; None: the preset's.
        quality: preset, a name in `QUALITY`.
        handoff: "auto", "matched" or "plain".
        batch_size: windows per batch.
        melody: True, False, or "auto" for True if a model has a melody input.
        melody_guidance: weight of the guidance of the target model, see `MelodyUse`; "auto": the
            preset's.
        vibrato: keep the vibrato of the recording, see `bridge.vibrato`.
    """

    sigma: float | None = None
    num_steps: int | None = None
    solver: str | None = None
    sigma_min: float | None = None
    rho: float | None = None
    quality: str = "normal"
    handoff: str = "auto"
    batch_size: int = 4
    melody: bool | str = "auto"
    melody_guidance: float | str = "auto"
    vibrato: bool = True

    def resolve(
        self, source: InstrumentSpec, target: InstrumentSpec, frequency_bands: bool
    ) -> ResolvedSettings:
        """Validate the settings and fill in the defaults for two models.

        Args:
            source: specification of the source model.
            target: specification of the target model.
            frequency_bands: whether the codec's latent channels are frequency bands.

        Returns:
            The settings without defaults.

        Raises:
            InputError: a setting is unknown, out of range or does not suit the models.
        """
        check_choice("quality", self.quality, QUALITY)
        check_switch("vibrato", self.vibrato)
        check_choice("handoff", self.handoff, HANDOFFS)
        check_number("batch_size", self.batch_size, whole=True, least=1)
        preset = QUALITY[self.quality]
        solver = preset.solver if self.solver is None else self.solver
        SOLVERS.find(solver)
        num_steps = preset.num_steps if self.num_steps is None else self.num_steps
        check_number("num_steps", num_steps, whole=True, least=2)
        sigma = self._sigma(source, target)
        sigma_min = self._sigma_min(source, target, preset, sigma)
        sigma_max = min(source.sigma_max, target.sigma_max)
        if not sigma_min < sigma <= sigma_max:
            raise InputError(
                f"sigma={sigma:g} lies outside ({sigma_min:g}, {sigma_max:g}], the range of noise "
                "levels of both models"
            )
        rho = preset.rho if self.rho is None else self.rho
        handoff = self._handoff(source, target, frequency_bands)
        given = self.sigma_min, self.rho  # either asks for Karras levels
        melody = MelodyUse.resolve(
            self.melody, self.melody_guidance, source, target, preset.guidance
        )
        fitted = None
        if given == (None, None):
            fitted = self._fitted(preset, any(melody.given) == melody.available)
        student = preset.student and not any((self.num_steps, self.solver, *given))
        return ResolvedSettings(
            sigma,
            sigma_min,
            rho,
            num_steps,
            solver,
            handoff,
            melody,
            fitted,
            student,
            self.melody_guidance,
            self.quality,
        )

    def _fitted(self, preset: Quality, with_melody: bool) -> int | None:
        """Return the points of fitted solvers that may take the place of the schedule.

        Args:
            preset: preset of the quality.
            with_melody: whether the models receive their melody, as in the fit; without it, more
                Karras levels are more exact.
        """
        if self.num_steps is None:
            few = preset.fitted == preset.num_steps
            return preset.fitted if few or with_melody else None
        # Presets without guidance use fitted solvers of other numbers of points, too.
        return self.num_steps if preset.fitted and preset.guidance == 1 else None

    def _sigma(self, source: InstrumentSpec, target: InstrumentSpec) -> float:
        if self.sigma is not None:
            return float(self.sigma)
        return min(target.handoff_from(source.name), source.sigma_max, target.sigma_max)

    def _sigma_min(
        self, source: InstrumentSpec, target: InstrumentSpec, preset: Quality, sigma: float
    ) -> float:
        if self.sigma_min is not None:
            return self.sigma_min
        # A hand-off close to the preset's data end still needs a schedule.
        return max(source.sigma_min, target.sigma_min, min(preset.sigma_min or 0.0, sigma / 10))

    def _handoff(
        self, source: InstrumentSpec, target: InstrumentSpec, frequency_bands: bool
    ) -> str:
        measured = frequency_bands and bool(target.noise)
        if self.handoff == "matched" and not measured:
            raise InputError(
                f"handoff=matched needs noise statistics, and the model of {target.name} holds none"
            )
        if self.handoff != "auto":
            return self.handoff
        return target.handoffs.get(source.name, "matched") if measured else "plain"
