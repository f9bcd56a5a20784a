"""The diffusion bridge: encode -> source ODE -> target ODE -> decode, in overlapping windows.

Su et al. 2023 (Dual Diffusion Implicit Bridges), applied to timbre transfer by Mancusi et al. 2025
(arXiv 2409.06096), section 2.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice

import torch
from torch import Tensor

from audio_diffusion_pytorch.audio import LevelMeter
from audio_diffusion_pytorch.bridge.encoded import Encoded
from audio_diffusion_pytorch.bridge.frozen import with_frozen_networks
from audio_diffusion_pytorch.bridge.hop_sizes import HopSizes
from audio_diffusion_pytorch.bridge.hop_stream import HopStream
from audio_diffusion_pytorch.bridge.inputs import (
    AUDIBLE,
    SoundBuffer,
    after_first_second,
    validate_blocks,
    validate_waveform,
)
from audio_diffusion_pytorch.bridge.model_pair import ModelPair
from audio_diffusion_pytorch.bridge.overlap_add import OverlapAdd, matching_gain
from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats, audible
from audio_diffusion_pytorch.bridge.register import octaves_into_range
from audio_diffusion_pytorch.bridge.windows import WindowCutter
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.pitch.octaves import Octaves
from audio_diffusion_pytorch.utils.iterables import batches

VERSION = 2  # increase it when a bridge's output changes at equal settings


class Bridge(ModelPair):
    """Transfer recordings of the source instrument to the target instrument.

    Equal recordings and settings give equal output. Calls do not change the bridge, so threads may
    share one.

    Args:
        source: model of the input's instrument, or its name or file, see `load_instrument`.
        target: model of the output's instrument, likewise.
        sigma: hand-off noise level between the two models; higher values change more. None: the
            target's default for this source, at most the largest level of both models.
        num_steps: points of the schedule of each half; num_steps - 1 solver steps each way. None:
            the preset's, see `quality`.
        solver: name in `SOLVERS`. None: the preset's.
        sigma_min: noise level at the data end of the schedule. None: the preset's.
        rho: spacing of the schedule. None: the preset's.
        quality: preset with measured settings, a name in `QUALITY`: "instant", "draft", "normal" or
            "high". The first three use students or solvers fitted to the models, see `schedules`.
        handoff: "plain" passes the noise on unchanged, as in the paper; "matched" matches its
            moments, see `match_moments`; "auto" uses the target's setting for this source, and
            "matched" without such a setting if the target model holds noise statistics and the
            codec's channels are frequency bands.
        batch_size: windows per batch.
        codec: codec of both models; None: the codec that the models contain or name.
        device: device of models and codec.
        precision: "32", "bf16" or "16" for the networks; "auto": float16 on CUDA, else float32.
        compile: compile the networks, with CUDA graphs on a GPU; the first batches take minutes.
        melody: give the models with a melody input the recording's pitch posteriors, see
            `melody_input`; False: drop them, the paper's method; "auto": True if a model has this
            input.
        melody_guidance: weight of classifier-free guidance by the melody on the target's side;
            above 1 the melody counts more. Weights other than 1 cost two network calls at the
            target's noise levels above 1. "auto": 3 for the qualities "normal" and "high" if the
            target model receives the melody, else 1.
        vibrato: keep the vibrato of the recording, if a model receives the melody, see
            `bridge.vibrato`. A stream with a `latency` does not.

    Raises:
        InputError: the models use different codecs, or a setting is invalid.
    """

    @torch.inference_mode()
    def __call__(
        self,
        wav: Tensor,
        sample_rate: int,
        progress: Callable[[int, int], None] | None = None,
        octaves: Octaves = "auto",
    ) -> Tensor:
        """Bridge a recording of any length; each channel is bridged separately.

        Args:
            wav: [C, T] in [-1, 1], T > 0.
            sample_rate: rate of input and output in Hz.
            progress: callback with the finished windows and the total.
            octaves: octaves by which the recording moves first; "auto": into the target's range,
                decided on the first minute.

        Returns:
            [C, T] at the input's level, with peaks of at most 1; silence stays silence.

        Raises:
            InputError: wav is empty, not [C, T] or not finite, or sample_rate is not a whole
                number.
        """
        wav, stats = _measured(wav, sample_rate)
        if octaves == "auto":
            octaves = octaves_into_range([wav], sample_rate, self.target.spec)
        framing = self.framing
        cutter = WindowCutter(framing, sample_rate, len(wav), stats, octaves)
        joiner = OverlapAdd(framing, sample_rate, len(wav), stats)
        total = self.num_windows(wav.shape[1], stats.tuned_rate(sample_rate)) * len(wav)
        parts = []
        for _, window, latents in self.bridge_windows((None, w) for w in cutter.windows([wav])):
            parts.append(joiner.add(window, latents))
            if progress is not None:
                progress(len(parts), total)
        return _at_level(torch.cat(parts, -1), sample_rate, stats.level)

    @torch.inference_mode()
    def encode(self, wav: Tensor, sample_rate: int) -> Encoded:
        """Encode a recording as noise at the hand-off sigma.

        Args:
            wav: [C, T] in [-1, 1], T > 0.
            sample_rate: in Hz.

        Returns:
            The noise and everything that `decode` needs.

        Raises:
            InputError: wav is empty, not [C, T] or not finite, or sample_rate is not a whole
                number.
        """
        wav, stats = _measured(wav, sample_rate)
        windows = list(WindowCutter(self.framing, sample_rate, len(wav), stats).windows([wav]))
        straight, noise, latents, melodies = [], [], [], []
        for batch in batches(windows, self.batch_size):
            batch, melody = self.with_melody(batch)
            straight += batch
            latents.append(self.encode_windows(batch).cpu())
            noise.append(self.to_noise(latents[-1].to(self.device), melody).cpu())
            if melody is not None:
                melodies.append(melody.cpu())
        windows = [replace(window, wav=window.wav[:0]) for window in straight]
        return Encoded(
            torch.cat(noise),
            torch.cat(latents),
            windows,
            wav.shape[0],
            wav.shape[1],
            sample_rate,
            stats,
            self.sigma,
            torch.cat(melodies) if melodies else None,
        )

    @torch.inference_mode()
    def decode(self, encoded: Encoded) -> Tensor:
        """Decode the output of `encode`, of this bridge or another one, with changed noise or not.

        Args:
            encoded: recording as noise.

        Returns:
            wav [C, T].

        Raises:
            InputError: the hand-off sigma or the window length differs from this bridge's.
        """
        if encoded.sigma != self.sigma or encoded.noise.shape[-1] != self.window:
            raise InputError(
                f"noise of sigma {encoded.sigma:g}, {encoded.noise.shape[-1]} frames a window, "
                f"does not fit a bridge of sigma {self.sigma:g}, {self.window} frames: "
                "encode and decode with the same settings"
            )
        joiner = OverlapAdd(self.framing, encoded.sample_rate, encoded.channels, encoded.survey)
        given = [encoded.noise, encoded.latents]
        if encoded.melody is not None:
            given.append(encoded.melody)
        parts = []
        for batch in batches(zip(encoded.windows, *given, strict=True), self.batch_size):
            windows, *rows = zip(*batch, strict=True)
            latents = self._to_target(windows, *(torch.stack(x).to(self.device) for x in rows))
            for window, part in zip(windows, latents.cpu(), strict=True):
                parts.append(joiner.add(window, part))
        return _at_level(torch.cat(parts, -1), encoded.sample_rate, encoded.survey.level)

    def stream(
        self,
        blocks: Iterable[Tensor],
        sample_rate: int,
        survey: RecordingStats | None = None,
        octaves: Octaves = "auto",
        latency: float | None = None,
    ) -> Iterator[Tensor]:
        """Bridge a recording block by block, in bounded memory.

        The output has exactly as many samples as the input. Without `latency` it lags by about one
        window and one block of the decoder. Its level follows from the training levels of the two
        models, since the level of the whole recording is unknown: it may differ from the input's by
        some dB, and peaks may exceed 1.

        With `latency` the windows move by short hops, and each of them costs as much computing as a
        window without `latency`.

        Args:
            blocks: [C, n] in [-1, 1], of any lengths.
            sample_rate: rate of input and output in Hz.
            survey: level and tuning of the recording (`RecordingStats.of`); None: measured on the
                first sound, over the length of one window. Sound before the first peak above
                -40 dB (`FIRST_SOUND`) may be room noise and becomes silence: a stream that stays
                quieter needs a survey.
            octaves: octaves by which the recording moves first; "auto": into the target's range,
                decided once, on the first second of sound.
            latency: largest delay from sound in to sound out in seconds, if the stream is played in
                real time. The level then follows the last 20 seconds of sound, and the tuning all
                of the sound so far.

        Returns:
            Blocks [C, n], each as soon as it is complete. With `latency` an iterator with the
            attribute `latency_seconds`, the delay that it keeps.

        Raises:
            InputError: latency is too short. While iterating: a block is not [C, n] or not finite,
                the number of channels changes, or sample_rate is not a whole number.
        """
        if latency is None:
            return self._stream(blocks, sample_rate, survey, octaves)
        sizes = self.hop_sizes(latency)
        pair = with_frozen_networks(self, sizes.window)
        return HopStream(pair, blocks, sample_rate, sizes, survey, octaves)

    def hop_sizes(self, latency: float) -> HopSizes:
        """Return the sizes of a stream whose delay is at most `latency` seconds.

        Raises:
            InputError: latency is too short.
        """
        return HopSizes.for_latency(latency, self.framing, self.downsample_factor)

    @torch.inference_mode()
    def _stream(
        self,
        blocks: Iterable[Tensor],
        sample_rate: int,
        survey: RecordingStats | None,
        octaves: Octaves,
    ) -> Iterator[Tensor]:
        blocks = audible(validate_blocks(blocks, sample_rate), sample_rate)
        framing = self.framing
        if survey is None:
            start = SoundBuffer(blocks, sample_rate, framing.seconds)
            yield from start.silence()
            held = start.held
        else:
            held = list(islice(blocks, 1))
        if not held:
            return
        stats = survey or RecordingStats.of_audible(held, sample_rate)
        channels = len(held[0])
        cutter = WindowCutter(framing, sample_rate, channels, stats)
        joiner = OverlapAdd(framing, sample_rate, channels, stats)
        blocks = chain(held, blocks)
        if octaves == "auto":

            def decide(sound: Tensor) -> None:
                cutter.octaves = octaves_into_range([sound], sample_rate, self.target.spec)

            blocks = after_first_second(blocks, sample_rate, AUDIBLE * stats.level, decide)
        else:
            cutter.octaves = octaves
        gain = self._stream_gain(stats.level)
        for _, window, latents in self.bridge_windows((None, w) for w in cutter.windows(blocks)):
            wav = joiner.add(window, latents)
            if wav.shape[-1]:
                yield wav * gain

    def _stream_gain(self, level: float) -> float:
        """Return the gain from the target model's training level to a recording's RMS `level`."""
        trained = self.target.spec.level_db
        if trained is None:
            return 1 / self.framing.gain(level)
        return level / 10 ** (trained / 20)


def _measured(wav: Tensor, sample_rate: int) -> tuple[Tensor, RecordingStats]:
    """Validate and high-pass wav [C, T], and measure its statistics."""
    wav = torch.cat(list(audible([validate_waveform(wav, sample_rate)], sample_rate)), -1)
    return wav, RecordingStats.of_audible([wav], sample_rate)


def _at_level(wav: Tensor, sample_rate: int, level: float) -> Tensor:
    meter = LevelMeter(sample_rate)
    meter.update(wav)
    return wav * matching_gain(level, meter)
