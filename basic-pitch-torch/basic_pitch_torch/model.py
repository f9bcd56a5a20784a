"""Basic Pitch in PyTorch.

Bittner, Bosch, Rubinstein, Meseguer-Brocal, Ewert: "A Lightweight Instrument-Agnostic Model for
Polyphonic Note Transcription and Multipitch Estimation", ICASSP 2022. The code follows the paper
and the graph of the published model file; the weights are those of the file (see assets/).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAMPLE_RATE = 22050
HOP = 256
BINS_PER_OCTAVE = 36
OCTAVES = 9
KERNEL = 256  # taps of the constant-Q kernels and of the half-band filter
BLOCK = 64  # samples of the halved signal computed at once
CQT_BINS = 309
CONTOUR_BINS = 264
HARMONICS = (0.5, 1, 2, 3, 4, 5, 6, 7)
WINDOW = 2 * SAMPLE_RATE - HOP  # 43844 samples: the window of the official model
OVERLAP_FRAMES = 30
FRAMES_PER_SECOND = (
    SAMPLE_RATE // HOP
)  # 86: the rounded rate of the official inference (exact: 86.13)
MIN_LENGTH = HOP * (
    KERNEL // 2 + 1
)  # in shorter clips the lowest octave is too short for reflect padding

Head = Literal["contour", "note", "onset"]  # each one needs those before it

WEIGHTS = Path(__file__).parent / "assets" / "basic_pitch.safetensors"


class ConstantQ(nn.Module):
    """Constant-Q magnitudes, 36 bins per octave.

    The kernels of one octave are applied at successively halved rates.
    """

    def __init__(self) -> None:
        super().__init__()
        kernel = torch.zeros(2, BINS_PER_OCTAVE, KERNEL)  # real and imaginary part
        self.register_buffer("kernel", kernel)
        self.register_buffer("lowpass", torch.zeros(KERNEL))
        self.register_buffer("scale", torch.zeros(CQT_BINS))

    def forward(self, wav: Tensor) -> Tensor:
        """Map wav [B, T] to squared magnitudes [B, 1 + T // 256, 309], low frequencies first."""
        frames = 1 + wav.shape[-1] // HOP
        kernel = self.kernel.reshape(-1, KERNEL).T
        halving = _sliding(self.lowpass, BLOCK, 2)
        octaves = []
        hop = HOP
        for octave in range(OCTAVES):
            padded = F.pad(wav[:, None], (KERNEL // 2, KERNEL // 2), mode="reflect")[:, 0]
            products = padded.unfold(-1, KERNEL, hop)[:, :frames] @ kernel
            octaves.append(products.unflatten(-1, (2, BINS_PER_OCTAVE)))
            if octave < OCTAVES - 1:
                wav = _halve(wav, halving)
                hop //= 2
        spectrum = torch.cat(octaves[::-1], dim=-1)[..., -CQT_BINS:] * self.scale
        return spectrum.square().sum(dim=2)


class BasicPitch(nn.Module):
    """Onset, contour and note posteriors of a recording, on any device."""

    def __init__(self) -> None:
        super().__init__()
        self.cqt = ConstantQ()
        self.register_buffer("norm_scale", torch.ones(()))
        self.register_buffer("norm_shift", torch.zeros(()))
        self.contour_in = nn.Conv2d(len(HARMONICS), 8, (3, 39), padding=(1, 19))
        self.contour_out = nn.Conv2d(8, 1, (5, 5), padding=(2, 2))
        self.note_in = nn.Conv2d(1, 32, (7, 7), stride=(1, 3), padding=(3, 2))
        self.note_out = nn.Conv2d(32, 1, (7, 3), padding=(3, 1))
        self.onset_in = nn.Conv2d(len(HARMONICS), 32, (5, 5), stride=(1, 3), padding=(2, 1))
        self.onset_out = nn.Conv2d(33, 1, (3, 3), padding=(1, 1))

    @classmethod
    def load(
        cls, device: torch.device | str | None = None, path: Path | str = WEIGHTS
    ) -> BasicPitch:
        """Load the published weights, frozen and in evaluation mode.

        Args:
            device: device of the model.
            path: file of the weights.

        Raises:
            FileNotFoundError: the file is missing.
        """
        from safetensors.torch import load_file

        if not Path(path).is_file():
            raise FileNotFoundError(
                f"weights of Basic Pitch not found: {path}; "
                "write them with scripts/import_basic_pitch.py"
            )
        model = cls()
        model.load_state_dict(load_file(path))
        return model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)

    def forward(self, wav: Tensor, until: Head = "onset") -> dict[str, Tensor]:
        """Run a batch in one piece.

        The level of each clip is normalised over its whole length, so posteriors of a section
        differ from a section of the posteriors. Clips below 1.5 s are zero-padded to the official
        window (2 s).

        Args:
            wav: clips [B, T] at 22.05 kHz, floating-point.
            until: last head to compute; "contour" is half of the work.

        Returns:
            Posteriors in (0, 1): "contour" [B, F, 264], "note" [B, F, 88], "onset" [B, F, 88], F =
            1 + T // 256.

        Raises:
            ValueError: wav has another shape, is empty or is not finite.
        """
        wav = self._validated(wav)
        frames = 1 + wav.shape[-1] // HOP
        if wav.shape[-1] < MIN_LENGTH:
            wav = F.pad(wav, (0, WINDOW - wav.shape[-1]))
        with _full_precision(wav.device):
            x = self._harmonics(self._normalise(self.cqt(wav)))
            contour = self.contour_out(self.contour_in(x).relu()).sigmoid()
            found = {"contour": contour}
            if until != "contour":
                note = self.note_out(self.note_in(contour).relu()).sigmoid()
                found["note"] = note
            if until == "onset":
                onsets = torch.cat([note, self.onset_in(x).relu()], dim=1)
                found["onset"] = self.onset_out(onsets).sigmoid()
        return {name: posteriors[:, 0, :frames] for name, posteriors in found.items()}

    @torch.no_grad()
    def predict(
        self,
        wav: Tensor,
        sample_rate: int = SAMPLE_RATE,
        batch_size: int = 32,
        until: Head = "onset",
    ) -> dict[str, Tensor]:
        """Run clips of any length in the windows of the official inference.

        Windows of 43844 samples overlap by 30 frames; 15 frames are cut from each end. Each window
        is normalised separately. As in the official code, 142 frames are kept for each 36164
        samples, so a frame represents 254.7 samples instead of 256, and the last 0.7 % of a clip
        has no frames.

        Args:
            wav: clips [B, T].
            sample_rate: sample rate in Hz; wav is resampled to 22.05 kHz.
            batch_size: windows in a batch.
            until: last head to compute.

        Returns:
            Posteriors as in `forward`, with F = floor(seconds * 86); clips below 1/86 s have no
            frames.

        Raises:
            ValueError: as in `forward`.
        """
        wav = resample(self._validated(wav), sample_rate, SAMPLE_RATE)
        batch, length = wav.shape
        step = WINDOW - OVERLAP_FRAMES * HOP
        trim = OVERLAP_FRAMES // 2
        lead = trim * HOP
        count = -(-(lead + length) // step)
        padded = F.pad(wav, (lead, (count - 1) * step + WINDOW - lead - length))
        windows = padded.unfold(-1, WINDOW, step).flatten(0, 1)  # [B * count, 43844]
        parts = [self(part.contiguous(), until) for part in windows.split(batch_size)]
        frames = math.floor(length * (FRAMES_PER_SECOND / SAMPLE_RATE))
        joined = {}
        for name in parts[0]:
            kept = torch.cat([part[name][:, trim:-trim] for part in parts])
            joined[name] = kept.unflatten(0, (batch, count)).flatten(1, 2)[:, :frames]
        return joined

    def _validated(self, wav: Tensor) -> Tensor:
        if wav.ndim != 2:
            raise ValueError(f"expected mono clips [batch, samples], got shape {tuple(wav.shape)}")
        if wav.shape[0] == 0 or wav.shape[1] == 0:
            raise ValueError(f"no audio: shape {tuple(wav.shape)}")
        if not wav.is_floating_point() or not torch.isfinite(wav).all():
            raise ValueError(
                f"expected finite floating-point samples, got {wav.dtype} with NaN or infinite "
                "values"
            )
        return wav.to(self.cqt.kernel.device, torch.float32)

    def _normalise(self, power: Tensor) -> Tensor:
        """Scale decibels to 0..1 over the clip, then apply the learned affine map.

        A flat spectrum (silence) becomes 0.
        """
        decibels = 10 * torch.log10(power + 1e-10)
        decibels = decibels - decibels.amin(dim=(1, 2), keepdim=True)
        peak = decibels.amax(dim=(1, 2), keepdim=True)
        scaled = torch.where(peak > 0, decibels / peak, torch.zeros_like(decibels))
        return scaled * self.norm_scale + self.norm_shift

    def _harmonics(self, x: Tensor) -> Tensor:
        """Stack harmonics of x [B, F, 309] to [B, 8, F, 264].

        Channel h contains the bin at HARMONICS[h] times the pitch, zeros outside the spectrum.
        """
        stack = []
        for harmonic in HARMONICS:
            shift = round(BINS_PER_OCTAVE * math.log2(harmonic))
            moved = F.pad(x, (-shift, max(0, shift + CONTOUR_BINS - CQT_BINS)))
            stack.append(moved[..., :CONTOUR_BINS])
        # Channels last: 5 times as fast on a CPU.
        return torch.stack(stack, dim=-1).permute(0, 3, 1, 2)


def _sliding(taps: Tensor, count: int, stride: int) -> Tensor:
    """Build the matrix [K + (count - 1) * stride, count] of shifted taps.

    Column i is taps [K], shifted down by i * stride.
    """
    rows = [F.pad(taps, (i * stride, (count - 1 - i) * stride)) for i in range(count)]
    return torch.stack(rows, dim=1)


def _halve(wav: Tensor, halving: Tensor) -> Tensor:
    """Filter wav [B, T] and decimate to [B, T // 2], by a product with BLOCK samples in each row.

    A convolution of one channel with 256 taps is 20 times slower on a CPU.
    """
    length = wav.shape[-1] // 2
    edge = KERNEL // 2 - 1
    padded = F.pad(wav, (edge, edge + 2 * BLOCK))
    return (padded.unfold(-1, halving.shape[0], 2 * BLOCK) @ halving).flatten(1)[:, :length]


def resample(wav: Tensor, source: int, target: int) -> Tensor:
    """Resample wav [B, T] to [B, ceil(T * target / source)] in the frequency domain.

    Args:
        wav: [B, T].
        source: sample rate of wav in Hz.
        target: sample rate of the result in Hz.

    Raises:
        ValueError: a rate is not a positive integer.
    """
    for rate in (source, target):
        if int(rate) != rate or rate <= 0:
            raise ValueError(f"a sample rate must be a positive integer, got {rate}")
    if source == target:
        return wav
    common = math.gcd(int(source), int(target))
    down = int(source) // common
    up = int(target) // common
    # Whole blocks keep the ratio exact; the additional block separates the ends, which the
    # transform joins.
    blocks = -(-wav.shape[-1] // down) + 1
    spectrum = torch.fft.rfft(F.pad(wav, (0, blocks * down - wav.shape[-1])))
    length = -(-wav.shape[-1] * up // down)
    return torch.fft.irfft(spectrum, n=blocks * up)[:, :length] * (up / down)


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Compute in float32 without autocast, TF32 or bfloat16; restore the settings afterwards."""
    cudnn = torch.backends.cudnn
    precision = torch.get_float32_matmul_precision()
    flags = {
        "enabled": cudnn.enabled,
        "benchmark": cudnn.benchmark,
        "deterministic": cudnn.deterministic,
    }
    torch.set_float32_matmul_precision("highest")
    try:
        with cudnn.flags(**flags, allow_tf32=False), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
