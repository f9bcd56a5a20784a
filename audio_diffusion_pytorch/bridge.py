"""The diffusion bridge: encode -> source ODE -> target ODE -> decode, in overlapping windows.

Su et al. 2023 (Dual Diffusion Implicit Bridges), as used by Mancusi et al. 2025 (arXiv 2409.06096), section 2.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from audio_diffusion_pytorch.audio import active_rms, resample
from audio_diffusion_pytorch.codec import Codec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.instrument import InstrumentModel, load_instrument, require_one_codec, shared_codec
from audio_diffusion_pytorch.sampling import SOLVERS, karras_schedule

_SILENCE = 1e-5  # peak below which a recording is silence
_EDGE = 4  # frames at a window's border that lack context and count for nothing in a cross-fade
_DECODE_FRAMES, _DECODE_CONTEXT = 1024, 64  # a block of the decoder, and what it sees beyond on both sides


class Bridge:
    """Maps a recording of the source instrument to the target instrument.

    Args:
        source, target: models, or what `load_instrument` takes.
        sigma: hand-off noise level between the two models; higher changes more. None: the target's default.
        num_steps: points of the schedule of each half; num_steps - 1 solver steps each way.
        solver: name in `sampling.SOLVERS`.
        sigma_min: noise level at the data end of the schedule. None: the models' own.
        rho: spacing of the schedule. None: the models' own.
        batch_size: windows that go through the networks together.
        codec: codec of both models. None: the one that came with the models or that they name.

    Raises:
        InputError: the models' codecs differ, or a setting makes no sense.
    """

    def __init__(
        self,
        source: InstrumentModel | str | Path,
        target: InstrumentModel | str | Path,
        sigma: float | None = None,
        num_steps: int = 32,
        solver: str = "dpmpp_2m",
        sigma_min: float | None = None,
        rho: float | None = None,
        batch_size: int = 4,
        codec: Codec | None = None,
        device: str | torch.device = "cpu",
    ):
        self.source, self.target = (
            model.to(device) if isinstance(model, InstrumentModel) else load_instrument(model, device)
            for model in (source, target)
        )
        specs = self.source.spec, self.target.spec
        require_one_codec(self.source, self.target)
        if solver not in SOLVERS:
            raise InputError(f"no solver {solver!r}; there are {', '.join(SOLVERS)}")
        self.sigma = self.target.spec.handoff_sigma if sigma is None else float(sigma)
        sigma_min = max(s.sigma_min for s in specs) if sigma_min is None else sigma_min
        if not sigma_min < self.sigma <= min(s.sigma_max for s in specs):
            raise InputError(
                f"sigma={self.sigma} lies outside ({sigma_min}, {min(s.sigma_max for s in specs)}], the noise levels "
                "that both models know"
            )
        if num_steps < 2:
            raise InputError(f"num_steps={num_steps}: a schedule needs at least 2 points")
        self.codec = (shared_codec(self.source, self.target) if codec is None else codec).to(device)
        if self.codec.latent_channels != len(self.source.mean):
            raise InputError(f"the codec has {self.codec.latent_channels} channels, the models {len(self.source.mean)}")
        self.rho = specs[1].rho if rho is None else rho
        self.sigmas = karras_schedule(sigma_min, self.sigma, self.rho, num_steps)
        self.solve, self.batch_size, self.device = SOLVERS[solver], batch_size, torch.device(device)
        factor = max(model.denoiser.net.downsample_factor for model in (self.source, self.target))
        self.window = -(-min(s.frames for s in specs) // factor) * factor
        self.hop = self.window * 3 // 4

    def at(self, sigma: float) -> "Bridge":
        """The same bridge with another hand-off sigma; shares models and codec."""
        solver = next(name for name, solve in SOLVERS.items() if solve is self.solve)
        return Bridge(
            self.source,
            self.target,
            sigma,
            len(self.sigmas),
            solver,
            sigma_min=float(self.sigmas[-1]),
            rho=self.rho,
            batch_size=self.batch_size,
            codec=self.codec,
            device=self.device,
        )

    @torch.inference_mode()
    def to_noise(self, latents: Tensor) -> Tensor:
        """Codec latents [B, D, L] of the source -> noise [B, D, L] at the hand-off sigma."""
        return self.solve(self.source.denoiser, self.source.normalise(latents), self.sigmas.flip(0))

    @torch.inference_mode()
    def from_noise(self, noise: Tensor) -> Tensor:
        """Noise [B, D, L] at the hand-off sigma -> codec latents [B, D, L] of the target."""
        return self.target.denormalise(self.solve(self.target.denoiser, noise, self.sigmas))

    @torch.inference_mode()
    def __call__(self, wav: Tensor, sample_rate: int, progress: Callable[[int, int], None] | None = None) -> Tensor:
        """Bridge a recording of any length; every channel on its own.

        Args:
            wav: [C, T] in [-1, 1], T > 0.
            sample_rate: in Hz; the result has the same.
            progress: called as progress(windows done, windows in all).

        Returns:
            [C, T], at the input's level; silence stays silence.

        Raises:
            InputError: wav is empty or not [C, T].
        """
        if wav.dim() != 2 or wav.shape[1] == 0:
            raise InputError(f"the bridge takes wav [C, T] with T > 0, not {list(wav.shape)}")
        if wav.abs().max() < _SILENCE:
            return torch.zeros_like(wav)
        level = active_rms(wav, sample_rate)
        expected = self.source.spec.level_db
        gain = 1.0 if expected is None else 10 ** (expected / 20) / level
        x = resample(wav, sample_rate, self.codec.sample_rate) * gain
        latents = self._bridge_windows(x, progress)
        out = resample(self._decode_blocks(latents, x.shape[-1]), self.codec.sample_rate, sample_rate)
        out = torch.nn.functional.pad(out, (0, max(0, wav.shape[1] - out.shape[1])))[:, : wav.shape[1]]
        out = out * (level / max(active_rms(out, sample_rate), 1e-8))
        return out / max(1.0, float(out.abs().max()))

    def num_windows(self, length: int) -> int:
        """Windows of `length` samples at the codec's rate, for one channel."""
        return len(self._starts(self.codec.num_frames(length)))

    def _starts(self, frames: int) -> list[int]:
        """First frames of the windows, the last one flush with the end."""
        last = max(frames - self.window, 0)
        return [*range(0, last, self.hop), last]

    def _bridge_windows(self, x: Tensor, progress: Callable[[int, int], None] | None) -> Tensor:
        """wav [C, T] at the codec's rate -> the target's latents [C, D, L], windows cross-faded."""
        hop = self.codec.hop_length
        frames = max(self.codec.num_frames(x.shape[-1]), self.window)
        x = torch.nn.functional.pad(x, (0, frames * hop - x.shape[-1]))
        windows = [(c, start) for start in self._starts(frames) for c in range(len(x))]
        total = torch.zeros(len(x), self.codec.latent_channels, frames)
        weights = torch.zeros(len(x), 1, frames)
        for i in range(0, len(windows), self.batch_size):
            batch = windows[i : i + self.batch_size]
            wav = torch.stack([x[c, start * hop : (start + self.window) * hop] for c, start in batch])[:, None]
            z = self.from_noise(self.to_noise(self.codec.encode(wav.to(self.device)))).cpu()
            for (c, start), part in zip(batch, z, strict=True):
                fade = self._fade(start > 0, start + self.window < frames)
                total[c, :, start : start + self.window] += part * fade
                weights[c, :, start : start + self.window] += fade
            if progress is not None:
                progress(min(i + self.batch_size, len(windows)), len(windows))
        return total / weights

    def _fade(self, fade_in: bool, fade_out: bool) -> Tensor:
        """Weights [window]: a ramp over the overlap where there is a neighbour, small but not zero at the very edge."""
        overlap = self.window - self.hop
        ramp = ((torch.arange(overlap) - _EDGE + 0.5) / (overlap - 2 * _EDGE)).clamp(1e-6, 1)
        fade = torch.ones(self.window)
        if fade_in:
            fade[:overlap] = ramp
        if fade_out:
            fade[-overlap:] = torch.minimum(fade[-overlap:], ramp.flip(0))
        return fade

    def _decode_blocks(self, latents: Tensor, length: int) -> Tensor:
        """latents [C, D, L] -> wav [C, length]; blocks see enough beyond their borders to join without a seam."""
        hop, parts = self.codec.hop_length, []
        for start in range(0, latents.shape[-1], _DECODE_FRAMES):
            before = min(start, _DECODE_CONTEXT)
            block = latents[..., start - before : start + _DECODE_FRAMES + _DECODE_CONTEXT].to(self.device)
            wav = self.codec.decode(block).cpu()[:, 0]
            parts.append(wav[:, before * hop : (before + _DECODE_FRAMES) * hop])
        return torch.cat(parts, -1)[:, :length]
