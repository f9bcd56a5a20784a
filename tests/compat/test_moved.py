"""Old module paths and names still import, with one warning that names the new place."""

import subprocess
import sys
from importlib import import_module

import pytest
from hydra.utils import get_class

from audio_diffusion_pytorch.compat import moved

TARGETS = [  # `_target_` strings of configurations that users wrote for 0.1.0
    "augment.RecordingAugment",
    "callbacks.SampleLogger",
    "checkpointing.BestCheckpoint",
    "checkpointing.LastCheckpoint",
    "classifier.InstrumentClassifier",
    "classifier_module.ClassifierModule",
    "codec.EncodecCodec",
    "codec.MelCodec",
    "codec_module.CodecModule",
    "coupling.ChunkCoupling",
    "datamodule.Datamodule",
    "dataset.InstrumentDataset",
    "denoiser.KDistribution",
    "module.InstrumentModule",
    "monitoring.ProgressBar",
    "monitoring.StopOnDivergence",
    "monitoring.TrainingMonitor",
    "preview.BridgePreview",
    "unet.UNet1d",
]
TAUGHT = [  # imports of the README and the notebook of 0.1.0
    ("audio", "read"),
    ("audio", "write"),
    ("bridge", "Bridge"),
    ("errors", "InputError"),
    ("metrics", "pitch_metrics"),
    ("metrics", "log_mel_distance"),
    ("pitch", "track_melody"),
    ("plots", "plot_spectrograms"),
]


@pytest.mark.parametrize("name", sorted(moved.MOVED))
def test_an_old_module_imports_with_one_warning(name, first_import):
    with pytest.warns(UserWarning, match="moved to") as told:
        import_module(f"{moved.PACKAGE}.{name}")
        import_module(f"{moved.PACKAGE}.{name}")
    assert len(told) == 1 and f"{moved.PACKAGE}.{moved.MOVED[name][0]}" in str(told[0].message)


@pytest.mark.parametrize("target", TARGETS)
def test_old_targets_name_the_same_classes(target, first_import):
    with pytest.warns(UserWarning, match="moved to"):
        found = get_class(f"{moved.PACKAGE}.{target}")
    assert found.__name__ == target.rpartition(".")[2]


def test_old_names_are_the_new_ones(first_import):
    with pytest.warns(UserWarning):
        from audio_diffusion_pytorch.streaming import Survey
    from audio_diffusion_pytorch.bridge import RecordingStats

    assert Survey is RecordingStats


def test_a_name_that_never_was_is_an_error(first_import):
    with pytest.warns(UserWarning), pytest.raises(ImportError):
        from audio_diffusion_pytorch.streaming import Nothing  # noqa: F401


@pytest.mark.parametrize(("module", "name"), TAUGHT)
def test_paths_that_were_taught_stay_without_a_warning(module, name, recwarn):
    assert hasattr(import_module(f"audio_diffusion_pytorch.{module}"), name)
    assert not [w for w in recwarn if "moved to" in str(w.message)]


def test_the_package_imports_no_torch():
    code = (
        "import sys, audio_diffusion_pytorch, audio_diffusion_pytorch.bridge, "
        "audio_diffusion_pytorch.training"
    )
    done = subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"])
    assert done.returncode == 0
