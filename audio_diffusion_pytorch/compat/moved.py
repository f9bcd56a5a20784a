"""Module paths of earlier versions: importing one warns once and names the new place.

An `_target_` in a user's own configuration, or an import in a script or a notebook, may still name
the old path.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PACKAGE = "audio_diffusion_pytorch"
# Old module: the modules that hold its names today, the main one first.
MOVED: dict[str, tuple[str, ...]] = {
    "about": ("utils.about",),
    "augment": ("data.augment",),
    "cache": (
        "data.latent_cache",
        "data.encode_latents",
        "data.latent_statistics",
    ),
    "callbacks": ("training.callbacks.samples",),
    "checkpoint": ("utils.checkpoint_io",),
    "checkpointing": (
        "training.callbacks.checkpoints",
        "training.processes",
    ),
    "classifier": ("models.classifier",),
    "classifier_module": ("training.classifier_module",),
    "clips": (
        "evaluation.clips",
        "evaluation.outputs",
    ),
    "codec": (
        "codecs.base",
        "audio.mel",
        "codecs.mel",
        "codecs.encodec",
        "codecs.loading",
        "utils.hashing",
        "paths",
    ),
    "codec_module": (
        "training.codec_module",
        "training.losses",
    ),
    "compat_config": (
        "compat.config",
        "training.save_part",
    ),
    "conv": ("models.conv",),
    "coupling": ("diffusion.coupling",),
    "datamodule": (
        "data.datamodule",
        "data.latent_statistics",
    ),
    "dataset": (
        "data.dataset",
        "instruments",
        "data.files",
    ),
    "denoiser": ("diffusion.denoiser",),
    "devices": ("utils.devices",),
    "digest": ("utils.hashing",),
    "ema": ("training.ema",),
    "embeddings": ("evaluation.embeddings",),
    "encodec_weights": ("codecs.encodec_weights",),
    "encoded": ("bridge.encoded",),
    "evaluation_report": ("evaluation.html_report",),
    "files": ("utils.files",),
    "frechet": ("metrics.frechet",),
    "handoff": (
        "bridge.handoff",
        "bridge.noise_statistics",
    ),
    "highpass": ("audio.highpass",),
    "incoming": ("bridge.inputs",),
    "instrument": (
        "models.instrument",
        "models.loading",
    ),
    "iterables": ("utils.iterables",),
    "jobs": ("transfer.jobs",),
    "labels": ("models.labels",),
    "layers": ("models.layers",),
    "listening": ("transfer.listening",),
    "loader": ("data.loader",),
    "mel_phase": ("codecs.griffin_lim",),
    "module": ("training.instrument_module",),
    "monitoring": (
        "training.callbacks.monitor",
        "training.callbacks.progress_bar",
        "training.callbacks.divergence",
        "training.loggers",
    ),
    "notes": (
        "pitch.notes",
        "metrics.transcription",
    ),
    "optim": (
        "training.optim",
        "training.checks",
    ),
    "original": (
        "models.original_checkpoint",
        "models.original_architecture",
        "utils.checkpoint_io",
        "codecs.encodec_weights",
    ),
    "pauses": ("bridge.pauses",),
    "pitch_shift": (
        "data.pitch_shift",
        "pitch.phase_vocoder",
    ),
    "plan": (
        "evaluation.setup",
        "evaluation.settings",
        "evaluation.catalog",
        "paths",
    ),
    "precision": ("bridge.precision",),
    "preview": (
        "training.callbacks.preview",
        "training.loggers",
        "models.loading",
    ),
    "problems": ("evaluation.problems",),
    "recompute": ("models.activation_checkpointing",),
    "recordings": (
        "transfer.file_transfer",
        "transfer.batch",
    ),
    "report": (
        "training.dry_run",
        "training.data_report",
        "training.schedule",
        "training.memory",
        "training.summary",
    ),
    "resolve": ("transfer.resolve",),
    "results": ("evaluation.results",),
    "run": (
        "training.run_folder",
        "training.resume",
        "training.checks",
    ),
    "sampler": ("data.sampler",),
    "sampling": (
        "diffusion.sampling",
        "bridge.presets",
    ),
    "schedule": ("training.schedule",),
    "scores": ("evaluation.scores",),
    "softening": ("bridge.softening",),
    "sound_names": ("evaluation.sound_names",),
    "streaming": (
        "bridge.windows",
        "bridge.recording_stats",
        "bridge.overlap_add",
        "bridge.framing",
    ),
    "summary": (
        "evaluation.aggregate",
        "evaluation.targets",
    ),
    "systems": (
        "evaluation.systems",
        "utils.hashing",
    ),
    "tables": ("evaluation.tables",),
    "tally": ("transfer.progress",),
    "threads": ("utils.threads",),
    "timing": ("training.timing",),
    "trainer": (
        "training.trainer",
        "training.processes",
    ),
    "transfer_report": ("transfer.report",),
    "transpose": (
        "pitch.octaves",
        "bridge.register",
        "instruments",
        "models.instrument",
    ),
    "tuning": ("pitch.tuning",),
    "unet": ("models.unet",),
    "validation": (
        "training.validation_loss",
        "training.randomness",
    ),
    "workers": ("transfer.run", "engine.local"),
}
# Old name: its name today.
RENAMED: dict[str, str] = {
    "Evaluation": "EvaluationRunner",
    "FARTHEST": "MAX_OCTAVES",
    "Figure": "Estimate",
    "Heard": "PitchAnalysis",
    "Item": "ScoringTask",
    "Listener": "PitchAnalyser",
    "MelPhase": "MelGriffinLim",
    "Plan": "EvaluationSetup",
    "Recording": "FileTransfer",
    "Row": "ScoredClip",
    "Run": "TransferRun",
    "Survey": "RecordingStats",
    "Settings": "EvaluationSettings",
    "TAKES": "RECORDING_CONDITIONS",
    "Take": "CachedVariant",
    "Tally": "TransferProgress",
    "Track": "OverlapAdd",
    "check_fits": "check_compatible",
    "checked": "validate_waveform",
    "checked_blocks": "validate_blocks",
    "embed_rows": "embed_outputs",
    "explained": "explain_loader_error",
    "group_rows": "group_clips",
    "hold_first_sound": "SoundBuffer",
    "locked": "lock_folder",
    "match": "match_moments",
    "one_of": "select_instrument",
    "plan": "resolve_jobs",
    "prepare": "at_precision",
    "replacing": "atomic_write",
    "start_from": "initialise_from",
    "statistics_at": "interpolate_statistics",
    "take_of": "select_condition",
}


class _MovedModule(ModuleType):
    """Placeholder of a moved module: attributes come from the modules that define them today."""

    def __getattr__(self, name: str) -> object:
        if not name.startswith("__"):
            for place in MOVED[self.__name__.rpartition(".")[2]]:
                module = import_module(f"{PACKAGE}.{place}")
                for known in (name, RENAMED.get(name, name)):
                    if hasattr(module, known):
                        return getattr(module, known)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class _MovedLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _MovedModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        new = MOVED[module.__name__.rpartition(".")[2]][0]
        warnings.warn(
            f"{module.__name__} moved to {PACKAGE}.{new}: change the import or _target_",
            stacklevel=2,
        )


class _MovedFinder(MetaPathFinder):
    """Find the old modules, after Python's own finders found nothing."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        return ModuleSpec(fullname, _MovedLoader()) if parent == PACKAGE and name in MOVED else None


def install() -> None:
    """Make the old module paths importable."""
    if not any(isinstance(finder, _MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MovedFinder())
