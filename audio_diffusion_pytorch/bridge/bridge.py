"""The diffusion bridge: encode -> source ODE -> target ODE -> decode, in overlapping windows.

Su et al. 2023 (Dual Diffusion Implicit Bridges), as used by Mancusi et al. 2025 (arXiv 2409.06096), section 2.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain, islice
from numbers import Integral
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from audio_diffusion_pytorch.audio import LevelMeter
from audio_diffusion_pytorch.bridge.encoded import Encoded
from audio_diffusion_pytorch.bridge.handoff import HANDOFFS, interpolate_statistics, match
from audio_diffusion_pytorch.bridge.inputs import (
    AUDIBLE,
    after_first_second,
    buffer_until_sound,
    validate_blocks,
    validate_waveform,
)
from audio_diffusion_pytorch.bridge.precision import choose_dtype, prepare
from audio_diffusion_pytorch.bridge.presets import QUALITY
from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats, audible
from audio_diffusion_pytorch.bridge.register import octaves_into_range
from audio_diffusion_pytorch.bridge.windows import Track, Window, matching_gain, window_starts
from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.diffusion.sampling import SOLVERS, karras_schedule
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.instrument import InstrumentModel, select_condition
from audio_diffusion_pytorch.models.labels import Labels
from audio_diffusion_pytorch.models.loading import load_instrument, require_one_codec, shared_codec
from audio_diffusion_pytorch.pitch.octaves import Octaves
from audio_diffusion_pytorch.utils.iterables import batches

VERSION = 2  # raise it when a bridge gives another sound at the same settings
LATENT_LIMIT = 6.0  # standard deviations: no recording's latents lie beyond, and decoders do not know what does

Owner = TypeVar("Owner")


class Bridge:
    """Maps a recording of the source instrument to the target instrument.

    The same recording and settings give the same result. A call changes nothing in the bridge: threads may share one.

    Args:
        source, target: models, or what `load_instrument` takes.
        sigma: hand-off noise level between the two models; higher changes more. None: the target's default for
            this source, as far as both models know it.
        num_steps: points of the schedule of each half; num_steps - 1 solver steps each way. None: the quality's, as for
            the next three.
        solver: name in `sampling.SOLVERS`.
        sigma_min: noise level at the data end of the schedule.
        rho: spacing of the schedule.
        quality: name in `sampling.QUALITY`, measured settings: "draft", "normal" or "high".
        handoff: "plain": the target gets the noise as it is, as in the paper; "matched": see `handoff.match`; "auto":
            what the target's model says for this source, else matched, where it holds the statistics and the codec's
            channels are frequency bands.
        batch_size: windows that go through the networks together.
        codec: codec of both models. None: the one that came with the models or that they name.
        precision: "32", "bf16" or "16", what the networks compute in; "auto": float16 on CUDA, float32 elsewhere.
        compile: with torch.compile, and CUDA graphs on a GPU; the first batches then take minutes.

    Raises:
        InputError: the models' codecs differ, or a setting makes no sense.
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
    ):
        self.source = select_condition(
            load_instrument(source, device), "varied"
        )  # a recording may sound like anything
        self.target = select_condition(load_instrument(target, device), "plain")
        specs = self.source.spec, self.target.spec
        for several in (Labels(spec.labels).instruments for spec in specs):
            if several:
                raise InputError(
                    f"the model knows {', '.join(several)}: say which, for example all:{several[0]}"
                )
        require_one_codec(self.source, self.target)
        if quality not in QUALITY:
            raise InputError(f"no quality {quality!r}; there are {', '.join(QUALITY)}")
        self._asked = {
            "quality": quality,
            "sigma_min": sigma_min,
        }  # the schedule's end follows from these and sigma
        preset = QUALITY[quality]
        self.solver = preset.solver if solver is None else solver
        num_steps = preset.num_steps if num_steps is None else num_steps
        known = min(s.sigma_max for s in specs)
        self.sigma = (
            min(specs[1].handoff_from(specs[0].name), known) if sigma is None else float(sigma)
        )
        if sigma_min is None:
            # a hand-off close to the preset's data end, which nobody needs, still gets a schedule
            sigma_min = max(
                *(s.sigma_min for s in specs), min(preset.sigma_min or 0.0, self.sigma / 10)
            )
        if not sigma_min < self.sigma <= known:
            raise InputError(
                f"sigma={self.sigma:g} lies outside ({sigma_min:g}, {known:g}], the noise levels that both models know"
            )
        if not isinstance(num_steps, Integral) or num_steps < 2:
            raise InputError(
                f"num_steps={num_steps}: a schedule needs a whole number of points, at least 2"
            )
        if not isinstance(batch_size, Integral) or batch_size < 1:
            raise InputError(f"batch_size={batch_size} must be a positive whole number")
        self.codec = (shared_codec(self.source, self.target) if codec is None else codec).to(device)
        if self.codec.latent_channels != len(self.source.mean):
            raise InputError(
                f"the codec has {self.codec.latent_channels} channels, the models {len(self.source.mean)}"
            )
        if handoff not in HANDOFFS:
            raise InputError(f"no handoff {handoff!r}; there are {', '.join(HANDOFFS)}")
        measured = self.codec.has_frequency_bands and bool(self.target.spec.noise)
        if handoff == "matched" and not measured:
            raise InputError(
                f"handoff=matched: the model of {specs[1].name} holds no statistics of its noise"
            )
        if handoff == "auto":
            handoff = specs[1].handoffs.get(specs[0].name, "matched") if measured else "plain"
        self.handoff = handoff
        if self.handoff == "matched":
            self._statistics = interpolate_statistics(self.target.spec.noise, self.sigma)
        self.rho = preset.rho if rho is None else rho
        self.sigmas = karras_schedule(sigma_min, self.sigma, self.rho, num_steps)
        self.solve, self.batch_size = SOLVERS.find(self.solver), batch_size
        factor = max(model.denoiser.net.downsample_factor for model in (self.source, self.target))
        self.window = -(-min(s.frames for s in specs) // factor) * factor
        self.hop = self.window * 3 // 4
        dtype = choose_dtype(precision, torch.device(device))
        self.denoisers = [
            prepare(model.denoiser, dtype, compile) for model in (self.source, self.target)
        ]

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return self.source.mean.device

    @property
    def settings(self) -> dict[str, float | str]:
        """What a result depends on besides models, codec and recording."""
        steps, sigma_min = len(self.sigmas), float(self.sigmas[-1])
        schedule = {
            "sigma": self.sigma,
            "sigma_min": sigma_min,
            "rho": self.rho,
            "num_steps": steps,
        }
        return {**schedule, "solver": self.solver, "handoff": self.handoff}

    def to(self, device: str | torch.device) -> "Bridge":
        """Move models and codec, in place as a module does; also those of other bridges that share them."""
        for module in (self.source, self.target, self.codec, *self.denoisers):
            module.to(device)
        return self

    def at(self, sigma: float) -> "Bridge":
        """The same bridge with another hand-off sigma; shares models and codec."""
        other = Bridge(
            self.source,
            self.target,
            sigma,
            len(self.sigmas),
            self.solver,
            rho=self.rho,
            handoff=self.handoff,
            batch_size=self.batch_size,
            codec=self.codec,
            device=self.device,
            precision="32",
            **self._asked,
        )
        other.denoisers = self.denoisers
        return other

    @torch.inference_mode()
    def to_noise(self, latents: Tensor) -> Tensor:
        """Codec latents [B, D, L] of the source -> noise [B, D, L] at the hand-off sigma."""
        return self.solve(self.denoisers[0], self.source.normalise(latents), self.sigmas.flip(0))

    @torch.inference_mode()
    def from_noise(self, noise: Tensor) -> Tensor:
        """Noise [B, D, L] at the hand-off sigma -> codec latents [B, D, L] of the target."""
        latents = self.solve(self.denoisers[1], noise, self.sigmas)
        return self.target.denormalise(latents.clamp(-LATENT_LIMIT, LATENT_LIMIT))

    @torch.inference_mode()
    def hand_over(self, noise: Tensor, sounding: Tensor) -> Tensor:
        """What `to_noise` gives -> what `from_noise` takes: [B, D, L], its frames `sounding` [B, L] or silent."""
        if self.handoff == "plain":
            return noise
        return match(noise, sounding, *(x.to(noise.device) for x in self._statistics))

    @torch.inference_mode()
    def __call__(
        self,
        wav: Tensor,
        sample_rate: int,
        progress: Callable[[int, int], None] | None = None,
        octaves: Octaves = "auto",
    ) -> Tensor:
        """Bridge a recording of any length; every channel on its own.

        Args:
            wav: [C, T] in [-1, 1], T > 0.
            sample_rate: in Hz; the result has the same.
            progress: called as progress(windows done, windows in all).
            octaves: by which it is moved before; "auto": into the target's range where its first minute lies outside.

        Returns:
            [C, T], at the input's level, peaks at 1 at most; silence stays silence.

        Raises:
            InputError: wav is empty, not [C, T] or not finite, or the rate is no whole number.
        """
        wav = torch.cat(list(audible([validate_waveform(wav, sample_rate)], sample_rate)), -1)
        survey = RecordingStats.of_audible([wav], sample_rate)
        octaves = (
            octaves_into_range([wav], sample_rate, self.target.spec)
            if octaves == "auto"
            else octaves
        )
        track = Track(self, sample_rate, len(wav), survey, octaves)
        total = self.num_windows(wav.shape[1], track.sample_rate) * len(wav)
        parts = []
        for _, window, latents in self.bridge_windows((None, w) for w in track.cut([wav])):
            parts.append(track.take(window, latents))
            if progress is not None:
                progress(len(parts), total)
        return _at_level(torch.cat(parts, -1), sample_rate, survey.level)

    @torch.inference_mode()
    def encode(self, wav: Tensor, sample_rate: int) -> Encoded:
        """wav [C, T] in [-1, 1], T > 0, at sample_rate Hz -> its noise at the hand-off sigma.

        Raises:
            InputError: wav is empty, not [C, T] or not finite, or the rate is no whole number.
        """
        wav = torch.cat(list(audible([validate_waveform(wav, sample_rate)], sample_rate)), -1)
        survey = RecordingStats.of_audible([wav], sample_rate)
        windows = list(Track(self, sample_rate, len(wav), survey).cut([wav]))
        noise, latents = [], []
        for batch in batches(windows, self.batch_size):
            latents.append(self._latents(batch).cpu())
            noise.append(self.to_noise(latents[-1].to(self.device)).cpu())
        windows = [replace(window, wav=window.wav[:0]) for window in windows]
        return Encoded(
            torch.cat(noise),
            torch.cat(latents),
            windows,
            *wav.shape,
            sample_rate,
            survey,
            self.sigma,
        )

    @torch.inference_mode()
    def decode(self, encoded: Encoded) -> Tensor:
        """What `encode` gave, its noise changed or not, by this bridge or another -> wav [C, T].

        Raises:
            InputError: it comes from a bridge of another hand-off sigma, or of other windows.
        """
        if encoded.sigma != self.sigma or encoded.noise.shape[-1] != self.window:
            raise InputError(
                f"noise of sigma {encoded.sigma:g}, {encoded.noise.shape[-1]} frames a window, does not fit a bridge "
                f"of sigma {self.sigma:g}, {self.window} frames: encode and decode with the same settings"
            )
        track = Track(self, encoded.sample_rate, encoded.channels, encoded.survey)
        track.length = encoded.length
        parts = []
        for batch in batches(
            zip(encoded.windows, encoded.noise, encoded.latents, strict=True), self.batch_size
        ):
            windows = [window for window, *_ in batch]
            noise, latents = (
                torch.stack(x).to(self.device) for x in list(zip(*batch, strict=True))[1:]
            )
            latents = self._played(windows, noise, latents).cpu()
            parts += [
                track.take(window, part) for window, part in zip(windows, latents, strict=True)
            ]
        return _at_level(torch.cat(parts, -1), encoded.sample_rate, encoded.survey.level)

    @torch.inference_mode()
    def stream(
        self,
        blocks: Iterable[Tensor],
        sample_rate: int,
        survey: RecordingStats | None = None,
        octaves: Octaves = "auto",
    ) -> Iterator[Tensor]:
        """Bridge a recording while it comes in, in bounded memory.

        The sound lags behind by about one window and one block of the decoder. In all as many samples come out as went
        in. Its level follows from the levels that the two models were trained at, since the whole is never known: it
        may differ from the input's by some dB, and peaks are not held below 1.

        Args:
            blocks: [C, n] in [-1, 1], of any lengths.
            sample_rate: of the blocks and of the result, in Hz.
            survey: level and tuning of the recording (`RecordingStats.of`); None: those of its
                first sound, as much of it as one window holds.
                What comes before a peak above -40 dB (`incoming.FIRST_SOUND`) may be a room's noise
                and gives silence: a stream that is quieter throughout needs a survey.
            octaves: by which it is moved before; "auto": into the target's range by its first second of sound, the
                same number to the end.

        Yields:
            [C, n], as it gets ready.

        Raises:
            InputError: a block is not [C, n] or not finite, or has another C than the first; or the rate is no whole
                number.
        """
        blocks = audible(validate_blocks(blocks, sample_rate), sample_rate)
        if survey is None:
            seconds = self.window * self.codec.hop_length / self.codec.sample_rate
            held = yield from buffer_until_sound(blocks, sample_rate, seconds)
        else:
            held = list(islice(blocks, 1))
        if not held:
            return
        survey = survey or RecordingStats.of_audible(held, sample_rate)
        track = Track(self, sample_rate, len(held[0]), survey, 0 if octaves == "auto" else octaves)
        trained = self.target.spec.level_db
        gain = 1 / track.gain if trained is None else survey.level / 10 ** (trained / 20)
        blocks = chain(held, blocks)
        if octaves == "auto":

            def decide(sound: Tensor) -> None:
                track.octaves = octaves_into_range([sound], sample_rate, self.target.spec)

            blocks = after_first_second(blocks, sample_rate, AUDIBLE * survey.level, decide)
        for _, window, latents in self.bridge_windows((None, w) for w in track.cut(blocks)):
            wav = track.take(window, latents)
            if wav.shape[-1]:
                yield wav * gain

    def bridge_windows(
        self, windows: Iterable[tuple[Owner, Window]]
    ) -> Iterator[tuple[Owner, Window, Tensor]]:
        """Windows, each with whose it is -> the same with the target's latents [D, L], in order."""
        return chain.from_iterable(self.bridge_batches(windows))

    @torch.inference_mode()
    def bridge_batches(
        self, windows: Iterable[tuple[Owner, Window]]
    ) -> Iterator[list[tuple[Owner, Window, Tensor]]]:
        """`bridge_windows`, in lists of those that went through the networks together.

        There are `batch_size` in a list, whosever they are; those without sound do not go through the networks.
        """
        for batch in batches(windows, self.batch_size):
            yield self.bridge_batch(batch)

    @torch.inference_mode()
    def bridge_batch(
        self, batch: Sequence[tuple[Owner, Window]]
    ) -> list[tuple[Owner, Window, Tensor]]:
        """Some windows, together, as `bridge_batches` does."""
        windows = [window for _, window in batch]
        latents = self._latents(windows)
        heard = [i for i, window in enumerate(windows) if window.played.any()]
        if heard:
            given = latents[heard]
            latents[heard] = self._played([windows[i] for i in heard], self.to_noise(given), given)
        return [(*pair, part) for pair, part in zip(batch, latents.cpu(), strict=True)]

    @cached_property
    def evaluations(self) -> int:
        """Network calls for one window, both ways."""
        calls = 0

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return x

        for sigmas in (self.sigmas, self.sigmas.flip(0)):
            self.solve(denoise, torch.zeros(1, 1, 1), sigmas)
        return calls

    def num_windows(self, length: int, sample_rate: float) -> int:
        """Windows of `length` samples at sample_rate Hz, for one channel."""
        return len(window_starts(self.num_frames(length, sample_rate), self.window, self.hop))

    def num_frames(self, length: int, sample_rate: float) -> int:
        """Latent frames of `length` samples at sample_rate Hz."""
        return self.codec.num_frames(int(-(-length * self.codec.sample_rate // sample_rate)))

    def _latents(self, windows: Sequence[Window]) -> Tensor:
        """The codec's latents [B, D, L] of the windows' sound."""
        return self.codec.encode(
            torch.stack([window.wav for window in windows])[:, None].to(self.device)
        )

    def _played(self, windows: Sequence[Window], noise: Tensor, given: Tensor) -> Tensor:
        """Noise of the source and the latents that it came from, [B, D, L] -> latents of the target.

        Frames that hold the recording's noise alone stay as they were: models know no hiss and no hum, and play them.
        """
        played = torch.stack([window.played for window in windows]).to(self.device)
        latents = self.codec.impose_levels(
            self.from_noise(self.hand_over(noise, played)), self.codec.frame_levels(given)
        )
        still = torch.stack([window.still for window in windows]).to(self.device)
        return torch.lerp(latents, given, still[:, None])


def _at_level(wav: Tensor, sample_rate: int, level: float) -> Tensor:
    meter = LevelMeter(sample_rate)
    meter.update(wav)
    return wav * matching_gain(level, meter)
