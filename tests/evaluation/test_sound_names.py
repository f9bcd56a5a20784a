"""Names of sounds that say what they are."""

import os

import pytest

from audio_diffusion_pytorch.evaluation.sound_names import publish, sound_name


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("flute-violin", "tune@0", "bridge"), "sounds/flute-violin/tune@0_bridge.flac"),
        (
            ("flute-violin", "tune 1@2.5", "bridge, sigma 4"),
            "sounds/flute-violin/tune_1@2.5_bridge_sigma_4.flac",
        ),
    ],
)
def test_names(parts, expected):
    assert sound_name(*parts) == expected


def test_any_name_is_a_file_s_on_any_system():
    names = [
        "s1/x@0",
        "s1_x@0",
        "a:b",
        "a*b",
        "..",
        "",
        "x" * 300,
        "é" * 200,
        "bad\udcff",
        "new\nline",
    ]
    found = [sound_name("flute-violin", name, "them/us") for name in names]
    assert len(set(found)) == len(names)
    for name in found:
        folder, pair, file = name.split("/")
        assert (folder, pair) == ("sounds", "flute-violin") and len(os.fsencode(file)) < 200
        assert not set(file) & set('<>:"\\|?*\n') and not file.startswith(".")


@pytest.mark.parametrize("links", [True, False])
def test_a_sound_gets_a_second_name(links, tmp_path, monkeypatch):
    def refuse(*args, **settings):
        raise OSError("Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    kept, name = tmp_path / "kept/1.flac", tmp_path / "sounds/a/b.flac"
    kept.parent.mkdir()
    for content in (b"one", b"two"):
        kept.unlink(missing_ok=True)
        kept.write_bytes(content)
        for _ in range(2):
            publish(kept, name)
            assert name.read_bytes() == content and os.path.samefile(kept, name) == links
    assert [path.name for path in name.parent.iterdir()] == ["b.flac"]
