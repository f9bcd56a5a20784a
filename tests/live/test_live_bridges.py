"""The bridge of a live session."""

import pytest

from audio_diffusion_pytorch.live.bridges import load_bridge
from audio_diffusion_pytorch.live.settings import LiveSettings
from audio_diffusion_pytorch.models.loading import load_instrument


@pytest.mark.parametrize(
    ("options", "path", "evaluations"),
    [
        ({}, "student", 4),
        ({"sigma": 4.0}, "Karras", 16),  # outside of the students' range
        ({"quality": "draft"}, "fitted", 10),
        ({"quality": "normal"}, "fitted", 20),
    ],
)
def test_the_quality_is_instant_between_models_with_students(options, path, evaluations):
    settings = LiveSettings("flute", "violin", bridge={"quality": "auto", **options})
    bridge = load_bridge(settings, load_instrument("violin"), "flute")
    assert bridge.num_evaluations == evaluations and bridge.schedules.path == path
