"""Aggregates: averages, ratios, intervals, the table of targets, the choice of excerpts."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from audio_diffusion_pytorch.evaluation import results, tables
from audio_diffusion_pytorch.evaluation.aggregate import (
    bootstrap,
    group_clips,
    mean,
    median,
    overall,
    ratio,
    real_vs_real,
    summarise,
)
from audio_diffusion_pytorch.evaluation.clips import (
    Recording,
    choose_excerpts,
    find_recordings,
    pairs_of,
    real_excerpts,
)
from audio_diffusion_pytorch.evaluation.html_report import write_report
from audio_diffusion_pytorch.evaluation.problems import Problems
from audio_diffusion_pytorch.evaluation.systems import System
from audio_diffusion_pytorch.evaluation.targets import PAPER_PAIRS, TARGETS
from audio_diffusion_pytorch.metrics.frechet import Moments

INSTRUMENTS = ("flute", "violin", "trumpet", "bassoon", "cello")
PAIRS = [(a, b) for a in INSTRUMENTS for b in INSTRUMENTS if a != b]
CLIPS = 4


def system(name: str, reference: bool = True) -> System:
    made = System()
    made.name, made.reference = name, reference
    return made


IDENTITY, TRUTH, BRIDGE = system("identity"), system("true performance"), system("bridge", False)


def frames(seed: int, shift: float, dims: int = 3) -> Moments:
    return Moments.of(torch.randn(dims, 60, generator=torch.Generator().manual_seed(seed)) + shift)


def groups(pairs=PAIRS, bad: tuple[str, str] | None = None):
    """Each pair has identity, truth and a bridge that halves distances; one pair may be bad."""
    rows, moments = [], []
    for pair in pairs:
        for made, rca, distance, shift in (
            (IDENTITY, 1.0, 2.0, 4.0),
            (TRUTH, 0.9, 0.0, 0.0),
            (BRIDGE, 0.9, 1.0, 1.0),
        ):
            for clip in range(CLIPS):
                scores = {
                    **{
                        "system": made.name,
                        "clip": str(clip),
                        "taken": 1.0,
                        "dpd": 0.01 * clip,
                        "voiced": 1.0,
                    },
                    **{"rca": rca, "log_mel_truth": distance},
                }
                if made is BRIDGE and pair == bad:
                    scores |= {"dpd": math.nan, "voiced": 0.0, "taken": 0.0}
                rows.append(
                    SimpleNamespace(task=SimpleNamespace(pair=pair, system=made), scores=scores)
                )
                moments.append(frames(clip, shift))
    found = group_clips(rows, moments)
    summarise(found, {name: [frames(9 + i, 0.0) for i in range(CLIPS)] for name in INSTRUMENTS})
    return found


def test_bootstrap_gives_the_statistic_and_an_interval_around_it():
    values = np.random.default_rng(0).normal(3, 1, (400, 1))
    figure = bootstrap(values, mean)
    assert figure.value == pytest.approx(values.mean())
    assert figure.low < figure.value < figure.high
    # A bootstrap of some hundred resamples: its interval scatters by 10 %.
    assert figure.high - figure.low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert bootstrap(values, mean) == figure  # seeded
    assert bootstrap(np.array([[1.0], [5.0], [np.nan], [2.0]]), median).value == 2
    assert math.isnan(bootstrap(np.full((3, 1), np.nan), mean).value)
    one = bootstrap(np.array([[4.0]]), mean)
    assert one.value == 4 and math.isnan(one.low)


def test_a_ratio_is_resampled_together():
    """Clips differ tenfold, but each is exactly half of its own reference: the ratio is sure."""
    reference = np.array([1.0, 2, 5, 10])
    figure = bootstrap(np.stack([reference / 2, reference], 1), ratio)
    assert (figure.value, figure.low, figure.high) == pytest.approx((0.5, 0.5, 0.5))


def test_figures_of_a_pair():
    found = {(g.pair, g.label): g.figures for g in groups()}
    bridge = found[("flute", "violin"), "bridge"]
    assert bridge["taken"].value == 1 and bridge["dpd"].value == pytest.approx(0.015)
    assert bridge["rca_relative"].value == pytest.approx(1) and bridge[
        "log_mel_share"
    ].value == pytest.approx(0.5)
    # A distance of few clips, which scatters.
    assert bridge["frechet_share"].value == pytest.approx(1 / 16, abs=0.05)
    assert (
        bridge["frechet_share"].low <= bridge["frechet_share"].value <= bridge["frechet_share"].high
    )
    assert found[("flute", "violin"), "identity"]["frechet_share"].value == pytest.approx(1)


def test_the_papers_pairs_their_worst_and_the_others():
    assert len(PAPER_PAIRS) == 8 and set(PAPER_PAIRS) < set(PAIRS)
    same = [g for g in groups(bad=("bassoon", "cello")) if g.label == "bridge"]
    taken, worst, others = overall(same, "taken")
    assert (taken.value, worst.value, others.value) == (7 / 8, 0, 1)
    dpd = overall(same, "dpd")
    assert dpd[1].value == 6  # no pitch at all is as far as can be
    table = tables.target_table(same, "small codec")
    assert table[0] == [
        "",
        "the paper's pairs, 8 of 8, mean",
        "worst of them",
        "the other 12 of 12, mean",
    ]
    assert [row[0] for row in table[1:]] == [
        t.label.format(embedder="small codec") for t in TARGETS
    ]
    assert "(>= 95.0 %: NO)" in table[1][1] and "(>= 85.0 %: yes)" in table[1][3]
    assert (
        ">=" not in tables.target_table(same, "encodec codec")[4][1]
    )  # another embedder has no bounds
    few = tables.target_table([g for g in same if g.pair == ("flute", "violin")], "small codec")
    assert few[0][1:] == [
        "the paper's pairs, 1 of 8, mean",
        "worst of them",
        "the other 0 of 12, mean",
    ]
    assert all(row[3] == "-" for row in few[1:])


def test_the_distance_of_real_halves_needs_two_halves():
    parts = [frames(i, 0.0) for i in range(4)]
    assert 0 < real_vs_real(parts) < 0.2
    assert math.isnan(real_vs_real(parts[:1])) and math.isnan(real_vs_real([]))


def test_results_are_plain_json_and_name_the_embedder(tmp_path):
    found, problems = groups([("flute", "violin")]), Problems()
    content = results.collect(
        found, {"violin": [frames(1, 0.0)]}, "small codec", problems, {"pairs": "all"}
    )
    results.write(found, content, tmp_path)
    written = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert written["real"]["violin"] == {"clips": 1, "frames": 60, "floor": None}
    assert {pair["embedder"] for pair in written["pairs"]} == {"small codec"}
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + 3 * CLIPS
    text = results.as_text(found, content)
    assert "bridge: targets" not in text and "(Frechet: small codec)" in text
    assert "bridge: targets" in results.as_text(found, {**content, "settings": {"targets": True}})


def test_results_may_name_files_that_are_not_utf_8(tmp_path):
    found, problems, name = (
        groups([("flute", "violin")]),
        Problems(["bad\udcff.wav: damaged"]),
        "bad\udcff",
    )
    found[0].clips[0].scores["clip"] = name
    given = dict.fromkeys(
        ("pairs", "data", "outputs", "models", "sigma", "quality", "clips", "seconds"), name
    )
    content = results.collect(found, {}, "small codec", problems, given)
    results.write(found, content, tmp_path)
    write_report(None, found, content, tmp_path / "report.html", 0)
    assert json.loads((tmp_path / "results.json").read_text())["clips"][0]["clip"] == name
    assert "bad\\udcff" in (tmp_path / "results.csv").read_text()
    assert "bad\\udcff.wav: damaged" in (tmp_path / "report.html").read_text()


def recording(name: str, instrument: str, seconds: float = 30.0, octaves: int = 0) -> Recording:
    notes = np.array([[i, i + 0.9, 60 + i % 12 + 12 * octaves] for i in range(int(seconds))], float)
    return Recording(Path(f"{name}_{instrument}.wav"), instrument, name, seconds, notes)


def test_excerpts_prefer_a_truth_in_the_register_and_other_performances():
    data = [recording(f"p{i}", "flute") for i in range(4)]
    data += [recording(f"p{i}", "violin", octaves=i % 2) for i in range(4)]
    chosen = choose_excerpts(data, ("flute", "violin"), 6, 10.0, lambda r: 0, Problems())
    assert [e.truth_octaves for e in chosen] == [0] * 6
    assert [e.name for e in chosen[:2]] == ["p0_flute@0", "p2_flute@0"] and chosen[2].start == 10
    more = choose_excerpts(data, ("flute", "violin"), 100, 10.0, lambda r: 0, Problems())
    assert len(more) == 12 and [e.truth_octaves for e in more[6:]] == [1] * 6
    assert np.allclose(chosen[2].notes[0], [0, 0.9, 70])


def test_excerpts_of_unpaired_or_short_recordings():
    problems = Problems()
    other = Recording(
        Path("p0_violin.wav"),
        "violin",
        "p0",
        30.0,
        recording("p0", "violin").notes + np.array([0.5, 0.5, 0]),
    )
    data = [recording("p0", "flute"), other, recording("p1", "flute", 5.0)]
    chosen = choose_excerpts(data, ("flute", "violin"), 9, 10.0, lambda r: 0, problems)
    assert len(chosen) == 3 and all(
        e.truth is None for e in chosen
    )  # one name, but not one performance
    assert "p1_flute.wav: shorter than an excerpt (seconds=10), left out" in problems.lines
    assert len(real_excerpts(data, "flute", 2, 10.0)) == 2


def test_instruments_are_named_by_any_folder_above(tmp_path):
    expected = {
        "flute/album/x.wav": "flute",
        "flute/album/x_violin.wav": "violin",
        "tuba/flute/x_violin.wav": "flute",
        "x_oboe.wav": "oboe",
    }
    for name in expected:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, np.zeros(2400), 24000)
    found = find_recordings(tmp_path, Problems())
    assert {r.path.relative_to(tmp_path).as_posix(): r.instrument for r in found} == expected


def test_pairs_are_read():
    assert pairs_of("all", ["flute", "violin"]) == [("flute", "violin"), ("violin", "flute")]
    assert pairs_of(["flute-double_bass", "flute-double_bass"], []) == [("flute", "double bass")]
    assert pairs_of("tuba-oboe", []) == [("tuba", "oboe")]


def test_what_ships_is_found_with_its_notes():
    from audio_diffusion_pytorch.paths import shipped_clips

    found, problems = find_recordings(shipped_clips(), Problems()), Problems()
    assert {r.instrument for r in found} == set(INSTRUMENTS) and all(
        r.notes is not None for r in found
    )
    assert len(found) == 20 and not problems.lines
    for pair in PAIRS:
        chosen = choose_excerpts(found, pair, 9, 12.0, lambda r: 0, problems)
        assert len(chosen) == 4 and all(e.truth is not None for e in chosen)
