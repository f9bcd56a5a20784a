"""Preservation of pauses, decays and cut notes, with the shipped models on synthetic recordings.

python benchmarks/pauses.py
python benchmarks/pauses.py --pairs flute-trumpet violin-cello --rates 44100 --quality draft

For each pair the table has the worst value over the sample rates, in dB:
- burst: the loudest 20 ms around the end of a cut note, relative to the loudest 20 ms of the note;
- level: change of the level of the active parts of that recording;
- hiss, hum: change of the level of the pauses with noise 40 dB below the notes, and the same
  A-weighted (A);
- decay: 95th percentile of the envelope error of decaying notes, down to 40 dB;
- rumble: level below 40 Hz of the output for an 8 Hz sine as strong as the notes, relative to the
  notes;
- rumbled: change of the level of the active parts by that rumble.
"""

import argparse

import numpy as np
import torch
from scipy import signal
from torch import Tensor

from audio_diffusion_pytorch import Bridge, audio

PITCHES = {
    "flute": 72,
    "violin": 69,
    "trumpet": 67,
    "cello": 52,
    "bassoon": 48,
}  # of the first note
STEPS = (0, -3, 4, 2, -5)
NOTE, PAUSE = 0.45, 0.4  # s
HOP = 0.005  # s, of envelopes


def notes(
    rate: int, first: int = 72, fade: float = 0.0, seconds: float = NOTE, decay: float = 0.0
) -> tuple[Tensor, list[float]]:
    """Synthesise notes with pauses of digital silence.

    Args:
        rate: sample rate in Hz.
        first: MIDI pitch of the first note.
        fade: length of the fade at the end of each note in seconds; 0: cut.
        seconds: length of a note.
        decay: seconds of a decay by 60 dB, 0.1 s after the onset; 0: constant level.

    Returns:
        Waveform [1, T], and the ends of the notes in seconds.
    """
    time = np.arange(round(seconds * rate)) / rate
    parts = []
    ends = []
    for step in STEPS:
        hertz = 440 * 2 ** ((first + step - 69) / 12)
        partials = (
            (k, a) for k, a in enumerate((1, 0.5, 0.3, 0.15, 0.08), 1) if hertz * k < 0.45 * rate
        )
        note = sum(a * np.sin(2 * np.pi * hertz * k * time) for k, a in partials) * np.minimum(
            1, time / 0.05
        )
        if decay:
            note *= 10 ** (-3 * np.maximum(0, time - 0.1) / decay)
        if fade:
            note[-round(fade * rate) :] *= (
                np.cos(np.linspace(0, np.pi / 2, round(fade * rate))) ** 2
            )
        parts += [note, np.zeros(round(PAUSE * rate))]
        ends.append(sum(map(len, parts[:-1])) / rate)
    wav = np.concatenate(parts)
    return torch.from_numpy((0.4 * wav / np.abs(wav).max()).astype("f4"))[None], ends


def noise(kind: str, samples: int, rate: int, rms: float) -> Tensor:
    """Synthesise noise [1, samples]: `white`, `pink`, or hum of a frequency in Hz such as `50`."""
    random = np.random.default_rng(0)
    time = np.arange(samples) / rate
    if kind == "white":
        wav = random.standard_normal(samples)
    elif kind == "pink":
        spectrum = np.fft.rfft(random.standard_normal(samples))
        wav = np.fft.irfft(
            spectrum / np.sqrt(np.maximum(np.fft.rfftfreq(samples, 1 / rate), 30)), samples
        )
    else:
        wav = sum(
            a * np.sin(2 * np.pi * float(kind) * k * time + k)
            for k, a in ((1, 1), (2, 0.3), (3, 0.4), (5, 0.1))
        )
    return torch.from_numpy((wav * rms / np.sqrt(np.mean(wav**2))).astype("f4"))[None]


def envelope(wav: Tensor, rate: int, window: float = 0.04) -> np.ndarray:
    """Measure the level of wav [1, T] in dB around each multiple of `HOP`."""
    half = round(window * rate / 2)
    sums = np.cumsum(np.pad(wav[0].double().numpy() ** 2, (half + 1, half)))
    places = (np.arange(int(wav.shape[1] / rate / HOP)) * HOP * rate).astype(int)
    return 10 * np.log10((sums[places + 2 * half] - sums[places]) / (2 * half) + 1e-14)


def burst(out: Tensor, rate: int, ends: list[float], seconds: float = NOTE) -> float:
    """Measure the maximum around the ends of cut notes, in dB relative to the note's maximum."""
    level = envelope(out, rate, 0.02)

    def part(start: float, stop: float) -> np.ndarray:
        return level[round(start / HOP) : round(stop / HOP)]

    return max(
        part(e - 0.12, e + 0.2).max() - part(e - seconds + 0.1, e - 0.15).max() for e in ends
    )


def level_change(out: Tensor, wav: Tensor, rate: int) -> float:
    """Measure the change of level of the active parts in dB."""
    return audio.to_db(audio.active_rms(out, rate)) - audio.to_db(audio.active_rms(wav, rate))


def pause_change(
    out: Tensor, wav: Tensor, rate: int, ends: list[float], weighted: bool = False
) -> float:
    """Measure the change of level of the pauses in dB, 60 ms away from the notes."""
    powers = []
    for x in (out, wav):
        x = _a_weighted(x[0].double().numpy(), rate) if weighted else x[0].double().numpy()
        parts = [x[round((end + 0.06) * rate) : round((end + PAUSE - 0.06) * rate)] for end in ends]
        powers.append(np.mean(np.concatenate(parts) ** 2))
    return float(10 * np.log10((powers[0] + 1e-14) / (powers[1] + 1e-14)))


def decay_errors(out: Tensor, wav: Tensor, rate: int) -> np.ndarray:
    """Return the envelope error of decays in dB, where the input is 3 to 40 dB below the notes."""
    level = envelope(out, rate)
    given = envelope(wav, rate)
    top = np.quantile(given, 0.95)
    later = np.pad(given, (0, 10), mode="edge")[10:]
    falling = (given - later > 0.3) & (given < top - 3) & (given > top - 40)
    return np.abs(level - given)[falling]


def low(wav: Tensor, rate: int) -> float:
    """Measure the level below 40 Hz in dB."""
    sections = signal.butter(6, 40, fs=rate, output="sos")
    return audio.to_db(
        float(np.sqrt(np.mean(signal.sosfiltfilt(sections, wav[0].double().numpy()) ** 2)))
    )


def _a_weighted(wav: np.ndarray, rate: int) -> np.ndarray:
    poles = -2 * np.pi * np.array([20.6, 20.6, 107.7, 737.9, 12194, 12194])
    gain = (2 * np.pi * 12194) ** 2 * 10**0.1
    return signal.sosfilt(signal.zpk2sos(*signal.bilinear_zpk([0] * 4, poles, gain, rate)), wav)


def measure(bridge: Bridge, source: str, rate: int) -> dict[str, float]:
    """Measure all values of one pair at one sample rate."""
    first = PITCHES.get(source, 60)
    wav, ends = notes(rate, first)
    out = bridge(wav, rate)
    found = {"burst": burst(out, rate, ends), "level": level_change(out, wav, rate)}
    wav, ends = notes(rate, first, fade=0.05)
    level = audio.active_rms(wav, rate)
    for name, kind in (("hiss", "white"), ("hum", "50")):
        noisy = wav + noise(kind, wav.shape[1], rate, level / 100)
        out = bridge(noisy, rate)
        found[name] = pause_change(out, noisy, rate, ends)
        found[f"{name} (A)"] = pause_change(out, noisy, rate, ends, True)
    falling, _ = notes(rate, first, seconds=1.2, decay=1.0)
    found["decay"] = float(np.quantile(decay_errors(bridge(falling, rate), falling, rate), 0.95))
    time = torch.arange(wav.shape[1]) / rate
    out = bridge(wav, rate)
    rumbled = bridge(wav + 2 * level * torch.sin(2 * torch.pi * 8 * time), rate)
    found["rumble"] = low(rumbled, rate) - audio.to_db(level)
    found["rumbled"] = level_change(rumbled, out, rate)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pairs = ["flute-violin", "flute-trumpet", "violin-cello", "cello-bassoon"]
    parser.add_argument("--pairs", nargs="+", default=pairs)
    parser.add_argument("--rates", nargs="+", type=int, default=[24000, 44100])
    parser.add_argument("--quality", default="normal")
    settings = parser.parse_args()
    for index, pair in enumerate(settings.pairs):
        source, target = pair.split("-")
        bridge = Bridge(source, target, quality=settings.quality)
        rows = [measure(bridge, source, rate) for rate in settings.rates]
        if index == 0:
            print("| pair | " + " | ".join(rows[0]) + " |\n" + "| --- " * (len(rows[0]) + 1) + "|")
        worst = [max((row[key] for row in rows), key=abs) for key in rows[0]]
        print(f"| {pair} | " + " | ".join(f"{value:+.1f}" for value in worst) + " |", flush=True)


if __name__ == "__main__":
    main()
