"""Phases of partials: they continue from frame to frame, and from a known start."""

import torch
from conftest import RATE
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_diffusion_pytorch.audio.mel import LogMel
from audio_diffusion_pytorch.codecs.griffin_lim import MelGriffinLim
from audio_diffusion_pytorch.codecs.phase_propagation import propagate_phases

HOP = 640
MEL = LogMel(RATE, 2048, 320, 128, 20.0, 1e-4)
PHASE = MelGriffinLim(MEL.filters, 2048, 320, rounds=0)


def tone(hertz: float, partials: int, seconds: float = 1.6) -> torch.Tensor:
    time = torch.arange(int(seconds * RATE) // HOP * HOP) / RATE
    waves = [torch.sin(2 * torch.pi * hertz * k * time + k * k) / k for k in range(1, 1 + partials)]
    return 0.2 * sum(waves)[None]


def sound(amplitudes: torch.Tensor, past: torch.Tensor | None = None) -> torch.Tensor:
    mel = torch.zeros(len(amplitudes), 128, 2 * amplitudes.shape[1])
    return PHASE(amplitudes, mel, past)


def spectral_error(wav: torch.Tensor, true: torch.Tensor) -> float:
    found, wanted = (PHASE.spectra(x).abs()[:, 3:-3] for x in (wav, true))
    return float(torch.linalg.vector_norm(found - wanted) / torch.linalg.vector_norm(wanted))


def test_partials_of_a_steady_tone_stay_steady():
    """Phases that do not continue blur the partials."""
    for hertz in (98.3, 441.7, 1320.9):
        wav = tone(hertz, 6)
        amplitudes = PHASE.spectra(wav).abs()
        same = torch.polar(amplitudes * 512, torch.zeros_like(amplitudes))
        blurred = PHASE._istft(torch.view_as_real(same), PHASE._scale(same.shape[1]), wav.shape[1])
        assert spectral_error(sound(amplitudes), wav) < 0.05
        assert spectral_error(blurred, wav) > 0.4


def test_a_gliding_tone_keeps_its_level():
    time = torch.arange(2 * RATE // HOP * HOP) / RATE
    wav = 0.3 * torch.sin(2 * torch.pi * (300 * time + 60 * time.square()))[None]
    assert spectral_error(sound(PHASE.spectra(wav).abs()), wav) < 0.1


def test_the_phases_continue_a_known_start():
    wav = tone(220.4, 4)
    amplitudes = PHASE.spectra(wav).abs()
    past = wav[:, : 20 * HOP]
    out = sound(amplitudes, past)
    assert torch.equal(out[:, : past.shape[1]], past)
    later = slice(past.shape[1], past.shape[1] + 4 * HOP)
    error = (out - wav)[:, later].square().mean() / wav[:, later].square().mean()
    assert error < 0.02
    fresh = (sound(amplitudes) - wav)[:, later].square().mean() / wav[:, later].square().mean()
    assert fresh > 0.3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 3), st.sampled_from([9, 33]))
def test_any_amplitudes(seed, frames, known, count):
    generator = torch.Generator().manual_seed(seed)
    amplitudes = torch.rand(2, frames, count, generator=generator) ** 8
    amplitudes[:, :, : count // 3] = 0
    first = torch.rand(2, min(known, frames), count, generator=generator) if known else None
    phases = propagate_phases(amplitudes, HOP, first)
    assert phases.shape == amplitudes.shape and phases.isfinite().all()
    if first is not None:
        assert torch.equal(phases[:, : first.shape[1]], first)
    assert torch.equal(
        phases[:1], propagate_phases(amplitudes[:1], HOP, None if first is None else first[:1])
    )


def test_silence_and_constant_amplitudes_have_phases():
    for value in (0.0, 0.1):
        assert propagate_phases(torch.full((1, 4, 17), value), HOP).isfinite().all()
