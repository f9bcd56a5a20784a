"""Phase reconstruction from a mel spectrogram: fast Griffin-Lim on the output of a decoder.

Latents of a steady tone do not depend on its phase, so a convolutional decoder cannot keep the
phase of low partials consistent across frames, and the partials blur. Griffin-Lim makes
neighbouring frames consistent.
"""

import torch
from torch import Tensor, nn

from audio_diffusion_pytorch.codecs.phase_propagation import propagate_phases

_MAX_LOG_GAIN = 3.0  # natural logarithm of the highest gain in a round
_EPSILON = 1e-5  # amplitude of a band below which its gain is about 1


class MelGriffinLim(nn.Module):
    """Fast Griffin-Lim (Perraudin et al. 2013, algorithm 2), with mel bands as the target.

    Each round scales every frequency by the missing gain of its bands, and extrapolates the
    spectrogram of the resulting sound by `momentum`.

    Args:
        filters: mel filters [bands, n_fft // 2 + 1].
        n_fft: window in samples.
        hop_length: samples between the frames of the mel spectrogram.
        rounds: number of rounds; 0 disables the reconstruction.
        momentum: weight of the extrapolation, alpha in the paper.
        stride: use every `stride`-th frame of the mel spectrogram.
    """

    window: Tensor
    filters: Tensor
    shares: Tensor

    def __init__(
        self,
        filters: Tensor,
        n_fft: int,
        hop_length: int,
        rounds: int = 16,
        momentum: float = 0.9,
        stride: int = 2,
    ):
        super().__init__()
        self.n_fft = n_fft
        self.hop = hop_length * stride
        self.rounds = rounds
        self.momentum = momentum
        self.stride = stride
        self.pad = (n_fft - hop_length) // 2
        window = torch.hann_window(n_fft)
        scaled = filters.T * (2 / window.sum())  # the scale of the mel bands
        self._full_scale = float(window.sum()) / 2  # amplitude of a sine of amplitude 1
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", scaled.contiguous(), persistent=False)
        shares = filters / filters.sum(0).clamp_min(1e-8)
        self.register_buffer("shares", shares, persistent=False)

    @torch.no_grad()
    def forward(self, start: Tensor, mel: Tensor, past: Tensor | None = None) -> Tensor:
        """Reconstruct the phases of a waveform.

        Args:
            start: initial waveform [B, T]; or amplitudes of the spectra of every `stride`-th frame
                [B, T / hop_length / stride, n_fft // 2 + 1] on the scale of `spectra`, whose phases
                are propagated.
            mel: target amplitudes of the mel bands [B, bands, T / hop_length].
            past: known start of the waveform [B, n]. Each round restores it, so the phases after it
                continue it (Beauregard et al. 2005, real-time iterative spectrogram inversion).

        Returns:
            Waveform [B, T].
        """
        length = mel.shape[-1] * self.hop // self.stride
        wav = _restore(start if start.ndim == 2 else self._propagate(start, length, past), past)
        if self.rounds == 0:
            return wav
        target = (mel[..., :: self.stride] + _EPSILON).transpose(1, 2)
        scale = self._scale(target.shape[1])
        # Half of the time without: new memory for each step of each round.
        frames = wav.new_empty(len(wav), target.shape[1], self.n_fft)
        before = self._stft(wav, frames)
        spectrum = before.clone()
        amplitudes = torch.empty_like(spectrum[..., 0])
        for _ in range(self.rounds):
            real, imaginary = spectrum.unbind(-1)
            torch.mul(real, real, out=amplitudes).addcmul_(imaginary, imaginary).sqrt_()
            bands = (amplitudes @ self.filters).add_(_EPSILON)
            gains = torch.div(target, bands, out=bands).log_().clamp_(-_MAX_LOG_GAIN, _MAX_LOG_GAIN)
            spectrum *= torch.matmul(gains, self.shares, out=amplitudes).exp_()[..., None]
            wav = _restore(self._istft(spectrum, scale, wav.shape[-1]), past)
            after = self._stft(wav, frames)
            torch.lerp(before, after, 1 + self.momentum, out=spectrum)
            before = after
        return wav

    def spectra(self, wav: Tensor) -> Tensor:
        """Compute the complex spectra [B, L, n_fft // 2 + 1] of every `stride`-th frame.

        A sine of amplitude 1 has a spectral peak of 1.

        Args:
            wav: sound [B, T].
        """
        count = -(-wav.shape[-1] // self.hop)
        wav = nn.functional.pad(wav, (0, count * self.hop - wav.shape[-1]))
        spectra = self._stft(wav, wav.new_empty(len(wav), count, self.n_fft))
        return torch.view_as_complex(spectra / self._full_scale)

    def _propagate(self, amplitudes: Tensor, length: int, past: Tensor | None) -> Tensor:
        """Make a waveform [B, length] of amplitudes, with phases by `propagate_phases`."""
        known = None
        if past is not None and past.shape[-1] >= self.n_fft - self.pad:
            frames = nn.functional.pad(past, (self.pad, 0)).unfold(-1, self.n_fft, self.hop)
            known = torch.fft.rfft(frames * self.window).angle()
        phases = propagate_phases(amplitudes, self.hop, known)
        spectrum = torch.view_as_real(torch.polar(amplitudes * self._full_scale, phases))
        return self._istft(spectrum, self._scale(amplitudes.shape[1]), length)

    def _scale(self, count: int) -> Tensor:
        """Return the reciprocal sum [1, samples] of the squared windows of `count` frames."""
        squares = self.window.square().expand(1, count, -1)
        return self._overlap_add(squares).clamp_min(1e-3).reciprocal()

    def _stft(self, wav: Tensor, frames: Tensor) -> Tensor:
        """Return the spectrum [B, L, n_fft // 2 + 1, 2] of wav [B, T], and overwrite the frames."""
        wav = nn.functional.pad(wav, (self.pad, self.pad))
        torch.mul(wav.unfold(-1, self.n_fft, self.hop), self.window, out=frames)
        return torch.view_as_real(torch.fft.rfft(frames))

    def _istft(self, spectrum: Tensor, scale: Tensor, length: int) -> Tensor:
        frames = torch.fft.irfft(torch.view_as_complex(spectrum), self.n_fft)
        return (self._overlap_add(frames * self.window) * scale)[:, self.pad : self.pad + length]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """Overlap-add frames [B, L, n_fft] to [B, samples], with frames beyond both ends."""
        starts = range(0, self.n_fft, self.hop)
        length = frames.shape[1]
        out = frames.new_zeros(len(frames), length + len(starts), self.hop)
        for first, start in enumerate(starts):
            piece = frames[:, :, start : start + self.hop]
            out[:, first : first + length, : piece.shape[-1]] += piece
        return out.flatten(1)


def _restore(wav: Tensor, past: Tensor | None) -> Tensor:
    """Replace the start of wav [B, T] by its known samples [B, n]."""
    return wav if past is None else torch.cat([past, wav[:, past.shape[-1] :]], -1)
