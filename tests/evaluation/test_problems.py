"""What is left out, in as many lines as there are reasons."""

from pathlib import Path

from audio_diffusion_pytorch.evaluation.problems import Problems


def test_equal_problems_are_one_line_with_a_count_and_names():
    problems, folder = Problems(), Path("/data/flutes")
    for number in range(9):
        problems.add(f"{folder}/take{number}.wav: silence from 0 s", folder / f"take{number}.wav")
        problems.add(
            f"cannot read {folder}/take{number}.wav as audio: it is cut",
            "elsewhere",
            folder / f"take{number}.wav",
        )
    problems.add(f"{folder}/other.wav: too short", folder / "other.wav")
    problems.add(f"{folder}/other.wav: too short", folder / "other.wav")
    names = "(9: flutes/take0.wav, flutes/take1.wav, flutes/take2.wav and 6 more)"
    assert problems.lines == [
        f"silence from 0 s {names}",
        f"cannot read NAME as audio: it is cut {names}",
        "/data/flutes/other.wav: too short",
    ]


def test_names_that_come_twice_in_a_line():
    problems = Problems()
    for name in ("oboe", "tuba"):
        problems.add(f"{name}: no {name}.safetensors in the folder models", name)
    assert problems.lines == ["no NAME.safetensors in the folder models (2: oboe, tuba)"]


def test_lines_without_a_name_come_once():
    problems = Problems(["a", "b", "a"])
    problems.add("b", "absent")
    assert problems.lines == ["a", "b"] and problems.short() == "a; b"


def test_many_problems_are_told_by_the_first_and_the_last():
    problems = Problems([str(number) for number in range(9)])
    assert problems.short() == "0; 1; 2; ... (3 more); 6; 7; 8"
