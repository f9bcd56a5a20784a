"""Use of the melody inputs of a bridge's models; guidance by melody and label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.unlabelled import Unlabelled, label_weight, unlabelled_of
from audio_diffusion_pytorch.utils.settings import check_number, check_switch

if TYPE_CHECKING:
    from torch import Tensor

    from audio_diffusion_pytorch.models.instrument import InstrumentModel, InstrumentSpec
    from audio_diffusion_pytorch.models.students import Student

GUIDED_ABOVE = 1.0  # noise level


@dataclass(frozen=True)
class MelodyUse:
    """Which models of a bridge receive the melody of the recording, and the guidance.

    Args:
        given: whether the source model and the target model receive the melody.
        guidance: weight of the guidance of the target model; 1: no guidance.
        available: whether a model of the bridge has a melody input.
        taught: whether the target is a student that was taught the guidance.
        label_guidance: weight of the instrument's label in the guidance; 1: none.
        unlabelled: the denoiser without a label, for `label_guidance`.
    """

    given: tuple[bool, bool] = (False, False)
    guidance: float = 1.0
    available: bool = False
    taught: bool = False
    label_guidance: float = 1.0
    unlabelled: Unlabelled | None = None

    @classmethod
    def resolve(
        cls,
        melody: bool | str,
        guidance: float | str,
        source: InstrumentSpec,
        target: InstrumentSpec,
        usual: float = 1.0,
    ) -> MelodyUse:
        """Validate the requested settings for two models.

        Args:
            melody: true, false, or "auto" for true if the target model has a melody input. The
                source model receives the melody only together with the target.
            guidance: weight of the guidance of the target model; "auto": `usual` if the target
                model receives the melody, else 1.
            source: specification of the source model.
            target: specification of the target model.
            usual: weight of the preset.

        Raises:
            InputError: a setting is out of range or does not suit the models.
        """
        check_switch("melody", melody, ("auto",))
        check_number("melody_guidance", guidance, least=0, allowed=("auto",))
        inputs = bool(source.melody_channels), bool(target.melody_channels)
        if melody is True and not any(inputs):
            raise InputError(
                f"melody=true needs a model with a melody input, and neither {source.name} nor "
                f"{target.name} has one: use melody=auto"
            )
        # Noise of a source that receives the melody lacks it: the target must receive it, too.
        given = (False, False) if melody is False else (all(inputs), inputs[1])
        if guidance == "auto":
            guidance = usual if given[1] else 1.0
        if guidance != 1 and not given[1]:
            reason = "melody=false" if inputs[1] else f"{target.name} has no melody input"
            raise InputError(
                f"melody_guidance={guidance:g} needs a target model that receives the melody, but "
                f"{reason}: use melody_guidance=1"
            )
        return cls(given, float(guidance), any(inputs))

    def by(self, target: InstrumentModel, student: Student | None) -> MelodyUse:
        """Return the use by the networks of a target.

        Args:
            target: model of the target; guidance by the label needs `unlabelled_of(target)`.
            student: student of the target, which was taught its guidance.
        """
        if student is not None:
            return replace(self, guidance=student.spec.guidance, taught=True)
        weight = label_weight(target)
        unlabelled = unlabelled_of(target) if self.guides and weight != 1 else None
        if unlabelled is None:
            return self
        return replace(self, label_guidance=weight, unlabelled=unlabelled)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that determine the output; none for models without a melody input."""
        if not self.available:
            return {}
        found: dict[str, Any] = {"melody": any(self.given), "melody_guidance": self.guidance}
        if self.unlabelled is not None:
            found["label_guidance"] = self.label_guidance
            if self.unlabelled.digest:
                found["label_model"] = self.unlabelled.digest
        return found

    @property
    def guides(self) -> bool:
        """Whether the guidance of the target needs further network calls."""
        return self.guidance != 1 and not self.taught

    def extra_calls(self, index: int, sigma: Tensor) -> int:
        """Return the further network calls of the guidance at a noise level.

        Args:
            index: the source (0) or the target (1).
            sigma: noise level [B].
        """
        if index == 0 or not self.guides or float(sigma.flatten()[0]) <= GUIDED_ABOVE:
            return 0
        return 1 if self.unlabelled is None else 2

    def denoiser(
        self,
        index: int,
        denoise: Any,
        melody: Tensor | None,
        unlabelled: Any = None,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Condition the denoiser of the source (0) or the target (1) on a melody.

        Classifier-free guidance of the target (Ho and Salimans 2022, eq. 6, for the denoised
        latents, which are linear in the noise): D = D_without + g (D_with - D_without). Low
        noise levels have no guidance, which gains nothing there (Kynkäänniemi et al. 2024,
        arXiv 2404.07724). The label of the instrument is a second condition (Brooks et al. 2023,
        arXiv 2211.09800, eq. 3): D = U + h (D_without - U) + g (D_with - D_without), and U is
        `unlabelled`, without the melody. Without the label, more of the source's timbre remains.

        Args:
            index: 0 or 1.
            denoise: a `Denoiser`.
            melody: [B, M, L]; None: no melody.
            unlabelled: the denoiser without a label, in the precision of the bridge; None: without
                `label_guidance`.

        Returns:
            A denoiser of x [B, D, L] and sigma.
        """
        given = self.conditions(index, denoise, melody)
        if not given:
            return denoise
        if index == 0 or not self.guides:
            return partial(denoise, **given)

        # Samples without a pitch have a dropped melody, and only the guidance by the label.
        pitched = melody.amax((1, 2)) > 0
        weight = torch.where(pitched, self.guidance, 1.0)[:, None, None].to(melody.dtype)

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            denoised = denoise(x, sigma, **given)
            if not self.extra_calls(index, sigma):
                return denoised
            without = denoise(x, sigma)
            result = without + weight * (denoised - without)
            if unlabelled is not None:
                result = result + (self.label_guidance - 1) * (without - unlabelled(x, sigma))
            return result

        return guided

    def conditions(self, index: int, denoise: Any, melody: Tensor | None) -> dict[str, Tensor]:
        """Return the melody as keywords of a denoiser, if the half receives it.

        Args:
            index: the source (0) or the target (1).
            denoise: a `Denoiser`.
            melody: [B, M, L]; None: no melody.
        """
        if melody is None or not self.given[index]:
            return {}
        return denoise.melody_conditions(melody)
