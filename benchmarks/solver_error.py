"""Error of a bridge's settings relative to the converged solution; imported by transfer.py."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from measuring import clips_of
from torch import Tensor
from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.fit_windows import (
    Recording,
    Windows,
    encode_windows,
    played_windows,
)
from audio_diffusion_pytorch.bridge.presets import QUALITY
from audio_diffusion_pytorch.diffusion.sampling import unipc

CONVERGED = 300  # points in each direction
# with sigma_min and rho of the models
PLAIN = dict(num_steps=100, solver="heun", precision="32", melody_guidance=1)
FINE = 16  # steps of the reference for each step of the preset


def plain_options(bridge: Bridge) -> dict:
    """Return the original's settings for a bridge of the same models."""
    specs = bridge.source.spec, bridge.target.spec
    return PLAIN | {"sigma_min": max(s.sigma_min for s in specs), "rho": specs[1].rho}


def find_clips(data: Path | None, instrument: str, count: int) -> list[Path]:
    """Select files spread over data/INSTRUMENT, or shipped clips."""
    files = clips_of(instrument, data)
    return [
        files[i] for i in torch.linspace(0, len(files) - 1, min(count, len(files))).long().unique()
    ]


def middle_windows(bridge: Bridge, files: list[Path]) -> Windows:
    """Cut the middle window with played sound from each file, in the target's register."""
    found = []
    for file in files:
        played = played_windows(bridge, Recording(*audio.read(file)))
        found += played[len(played) // 2 :][:1]
    return encode_windows(bridge, found)


@torch.inference_mode()
def measure(
    source: str,
    target: str,
    data: Path | None,
    count: int,
    device: str,
    chosen: Sequence[str] = (),
) -> list[tuple[str, int, str, str]]:
    """Return rows (settings, evaluations, error of the noise, error of the result).

    Errors are median / 90th percentile. `chosen` names the rows; without names there are all.

    The result is the target's normalised latents of one window of each clip. Errors are relative to
    the converged solution in float32, with `CONVERGED` points in each direction from the models'
    sigma_min. All solutions are without guidance.
    """
    reference = Bridge(source, target, precision="32", device=device)
    plain = plain_options(reference)
    settings = {name: {"quality": name, "precision": "32"} for name in QUALITY}
    for points in (5, 6):  # without the students
        options = {"quality": "instant", "num_steps": points, "precision": "32"}
        settings[f"instant, {points} points"] = options
    points = QUALITY["normal"].num_steps
    settings |= {
        f"{points} Karras points, precision {p}": {"num_steps": points, "precision": p}
        for p in ("32", "16", "bf16")
    }
    coarse = plain | {"num_steps": points, "solver": "unipc"}
    settings |= {"plain": plain, f"unipc, {points} points, the plain spacing": coarse}
    settings |= {
        f"{name}, 26 points": plain | {"num_steps": 26, "solver": name}
        for name in ("dpmpp_2m", "dpmpp_3m")
    }
    if unknown := set(chosen) - set(settings):
        raise SystemExit(f"unknown rows {sorted(unknown)}; there are: {'; '.join(settings)}")
    settings = {name: settings[name] for name in chosen or settings}
    files = find_clips(data, source, count)
    exact = Bridge(
        source, target, device=device, **plain | {"num_steps": CONVERGED, "solver": "unipc"}
    )
    windows = middle_windows(exact, files)
    rows = []
    found = {}
    for name, options in tqdm(
        {"converged": None, **settings}.items(), desc=f"{source} -> {target}", unit="setting"
    ):
        bridge = exact
        if options is not None:
            bridge = Bridge(source, target, device=device, **{"melody_guidance": 1, **options})
        noise = bridge.to_noise(windows.latents, windows.melody)
        handed = bridge.hand_over(noise, windows.played)
        result = bridge.target.normalise(bridge.from_noise(handed, windows.melody))
        if options is None:
            found = {"noise": noise, "result": result}
        else:
            rows.append(
                (
                    f"{name} ({bridge.schedules.path})",
                    bridge.num_evaluations,
                    spread(noise, found["noise"]),
                    spread(result, found["result"]),
                )
            )
    return rows


@torch.inference_mode()
def where(
    source: str, target: str, data: Path | None, count: int, device: str
) -> list[tuple[str, float, float, float]]:
    """Return rows (direction, from sigma, to sigma, median error that a step of `normal` adds).

    Both runs start from the same state; errors are relative to the norm of the reference at the
    noise level.
    """
    options = {"num_steps": QUALITY["normal"].num_steps, "melody_guidance": 1}  # Karras levels
    bridge = Bridge(source, target, precision="32", device=device, **options)
    windows = middle_windows(bridge, find_clips(data, source, count))
    rows = []
    state = bridge.source.normalise(windows.latents)
    denoisers = [bridge.conditioned(index, windows.melody) for index in (0, 1)]
    for name, denoiser, sigmas in (
        ("to noise", denoisers[0], bridge.sigmas.flip(0)),
        ("to data", denoisers[1], bridge.sigmas),
    ):
        fine = torch.cat(
            [torch.logspace(a, b, FINE + 1).double()[:-1] for a, b in pairs(sigmas.log10())]
        )
        coarse_states = []
        fine_states = []
        bridge.solve(recording(denoiser, coarse_states), state, sigmas)
        end = unipc(recording(denoiser, fine_states), state, torch.cat([fine, sigmas[-1:]]))
        errors = [
            float(relative(a, b).median())
            for a, b in zip(coarse_states, fine_states[::FINE], strict=True)
        ]
        levels = sigmas.tolist()
        rows += [
            (name, levels[i], levels[i + 1], errors[i + 1] - errors[i])
            for i in range(len(errors) - 1)
        ]
        state = end
    return rows


def recording(denoiser: Callable, states: list[Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        states.append(x)
        return denoiser(x, sigma)

    return denoise


def pairs(values: Tensor) -> list[tuple[float, float]]:
    return list(zip(values[:-1].tolist(), values[1:].tolist(), strict=True))


def relative(actual: Tensor, expected: Tensor) -> Tensor:
    """Relative error [N] of [N, ...]."""
    return (actual - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)


def spread(actual: Tensor, expected: Tensor) -> str:
    errors = relative(actual, expected).double()
    return f"{errors.median():.4f} / {errors.quantile(0.9):.4f}"
