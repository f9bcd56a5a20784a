"""Phases that fit a mel spectrogram: a few rounds of fast Griffin-Lim on top of a decoder's sound.

A convolutional decoder sees the same latents wherever a steady tone is in its period, so that it cannot keep the phase
of low partials from frame to frame: they blur. Rounds between the spectrogram and the sound bring neighbouring frames
into agreement.
"""

import torch
from torch import Tensor, nn

_MOST = 3.0  # log of the highest gain in a round
_QUIET = 1e-5  # amplitude of a band below which its gain is about 1


class MelGriffinLim(nn.Module):
    """Fast Griffin-Lim (Perraudin et al. 2013, algorithm 2) towards mel bands instead of single frequencies.

    In each round every frequency is scaled by the gains that its bands lack, and the spectrogram of the sound that
    results goes on beyond itself by `momentum`.

    Args:
        filters: [bands, n_fft // 2 + 1] mel filters.
        n_fft: window in samples.
        hop_length: samples between the frames of the mel spectrogram.
        rounds: 0 gives back the sound as it is.
        stride: every so many frames are looked at.
    """

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
        self.n_fft, self.hop, self.rounds, self.momentum = (
            n_fft,
            hop_length * stride,
            rounds,
            momentum,
        )
        self.stride, self.pad = stride, (n_fft - hop_length) // 2
        window = torch.hann_window(n_fft)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer(
            "filters", filters * (2 / window.sum()), persistent=False
        )  # as the bands are scaled
        shares = filters / filters.sum(0).clamp_min(1e-8)
        self.register_buffer("shares", shares.T.contiguous(), persistent=False)

    def forward(self, wav: Tensor, mel: Tensor) -> Tensor:
        """wav [B, T] and the amplitudes of its mel bands to be, [B, bands, T / hop_length] -> wav [B, T]."""
        if self.rounds == 0:
            return wav
        wanted = mel[..., :: self.stride] + _QUIET
        norm = self._overlap_add(self.window.square().expand(1, wanted.shape[-1], -1)).clamp_min(
            1e-3
        )
        spectrum = before = self._stft(wav)
        for _ in range(self.rounds):
            lacking = (wanted / (self.filters @ spectrum.abs() + _QUIET)).log().clamp(-_MOST, _MOST)
            wav = self._istft(spectrum * (self.shares @ lacking).exp(), norm, wav.shape[-1])
            after = self._stft(wav)
            spectrum, before = after + self.momentum * (after - before), after
        return wav

    def _stft(self, wav: Tensor) -> Tensor:
        wav = nn.functional.pad(wav, (self.pad, self.pad))
        return torch.stft(
            wav, self.n_fft, self.hop, window=self.window, center=False, return_complex=True
        )

    def _istft(self, spectrum: Tensor, norm: Tensor, length: int) -> Tensor:
        frames = torch.fft.irfft(spectrum.transpose(1, 2), self.n_fft) * self.window
        return (self._overlap_add(frames) / norm)[:, self.pad : self.pad + length]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """[B, L, n_fft] -> [B, samples]: `torch.istft` refuses frames that reach beyond both ends."""
        pieces = -(-self.n_fft // self.hop)
        frames = nn.functional.pad(frames, (0, pieces * self.hop - self.n_fft)).unflatten(
            -1, (pieces, self.hop)
        )
        out = frames.new_zeros(len(frames), frames.shape[1] + pieces, self.hop)
        for piece in range(pieces):
            out[:, piece : piece + frames.shape[1]] += frames[:, :, piece]
        return out.flatten(1)
