"""Fit solvers to models, for quality=instant, draft and normal.

    python scripts/fit_schedule.py                              # all shipped single models
    python scripts/fit_schedule.py logs/my_flute --data FOLDER  # an export or a run folder

The command writes noise levels and weights of the solver into NAME.schedules.json beside each
NAME.safetensors; the model does not change. Half of the recordings serve the fit, the other half
measure the error. A repeated command continues with the fits that are missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from audio_diffusion_pytorch.cli import plain_warnings, run_command
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.paths import shipped_clips
from audio_diffusion_pytorch.utils.registry import import_plugins

if TYPE_CHECKING:
    from audio_diffusion_pytorch.bridge.schedule_plan import Fits
    from audio_diffusion_pytorch.models.fitted_schedules import FittedSchedules

EVALUATIONS = (4, 5, 8)  # instant, draft, normal
WINDOWS = 6
FILES = 8  # recordings of an instrument, about
SECONDS = 20  # of a recording that are read


def make_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(
        "fit_schedule.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "models",
        nargs="*",
        metavar="MODEL",
        help="shipped name, .safetensors file or run folder with an export (default: all shipped "
        "models of one instrument)",
    )
    add(
        "--data",
        type=Path,
        nargs="*",
        metavar="FOLDER",
        default=[],
        help="recordings with the name of the instrument in the file name; the shipped clips serve "
        "for other instruments",
    )
    add(
        "--others",
        nargs="+",
        metavar="MODEL",
        help="models at the other ends of bridges (default: the other shipped models on the same "
        "codec; without any, the model itself)",
    )
    add(
        "--evaluations",
        type=int,
        nargs="+",
        default=list(EVALUATIONS),
        metavar="N",
        help="network calls of one half: 4 serves instant, 5 draft, 8 normal (default: 4 5 8)",
    )
    add(
        "--sigmas",
        type=float,
        nargs="+",
        default=[],
        metavar="SIGMA",
        help="hand-off levels (default: those of the models)",
    )
    add(
        "--windows",
        type=int,
        default=WINDOWS,
        help="windows of each pair of models, for the fit and again for the check "
        f"(default: {WINDOWS})",
    )
    add("--device", default="auto", help="cpu, cuda, cuda:1 ... (default: the GPU if there is one)")
    add("--plugins", nargs="+", default=[], metavar="MODULE", help="your own modules")
    add("--again", action="store_true", help="repeat fits that exist")
    add("--dry-run", action="store_true", help="list the fits, write nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `argv`: its arguments, None: those of the process."""
    arguments = make_parser().parse_args(argv)
    plain_warnings()
    run_command(lambda: fit_models(arguments))


def fit_models(arguments: argparse.Namespace) -> None:
    """Fit the solvers of each model.

    Args:
        arguments: output of the parser.

    Raises:
        InputError: an argument is wrong, or the recordings do not suffice.
    """
    from audio_diffusion_pytorch.bridge.fit_windows import read_recordings
    from audio_diffusion_pytorch.bridge.schedule_plan import Fits
    from audio_diffusion_pytorch.models.loading import shipped_instruments
    from audio_diffusion_pytorch.utils.devices import choose_device
    from audio_diffusion_pytorch.utils.settings import check_number
    from audio_diffusion_pytorch.utils.threads import set_threads

    for count in arguments.evaluations:
        check_number("--evaluations", count, whole=True, least=1)
    for sigma in arguments.sigmas:
        check_number("--sigmas", sigma, above=0)
    check_number("--windows", arguments.windows, whole=True, least=1)
    import_plugins(arguments.plugins)
    device = choose_device(arguments.device)
    set_threads()
    recordings = cache(
        lambda name: read_recordings(find_recordings(arguments.data, name), FILES, SECONDS)
    )
    fits = Fits(recordings, arguments.windows)
    for name in arguments.models or shipped_instruments():
        ModelFit(name, arguments, str(device)).run(fits)


class ModelFit:
    """Fit the solvers of one model and write them after each fit.

    Args:
        name: name or path of the model.
        arguments: output of the parser.
        device: name of a torch device.

    Raises:
        InputError: the model is not an exported file, or a level lies outside its range.
    """

    def __init__(self, name: str, arguments: argparse.Namespace, device: str):
        from audio_diffusion_pytorch.bridge.schedule_plan import plan_fits
        from audio_diffusion_pytorch.codecs.loading import load_codec
        from audio_diffusion_pytorch.models.loading import load_instrument, load_others

        self.arguments = arguments
        self.model = load_instrument(name, device)
        if self.model.file is None:
            raise InputError(
                f"{name} is not an exported model: export it first, with scripts/export_model.py"
            )
        if self.model.codec is None:
            self.model.codec = load_codec(self.model.spec.codec)
        others = load_others(self.model, arguments.others)
        self.tasks = plan_fits(self.model, others, arguments.evaluations, arguments.sigmas)
        self.fitted = self._fitted()

    def _fitted(self) -> FittedSchedules:
        """Return the fits that exist; those of other weights count as missing."""
        from audio_diffusion_pytorch.models.fitted_schedules import FittedSchedules, weights_digest

        assert self.model.file is not None
        return self.model.fitted or FittedSchedules(weights_digest(self.model.file))

    def run(self, fits: Fits) -> None:
        """Run the missing fits, with a progress bar and a line for each.

        Args:
            fits: runs fits of all models.

        Raises:
            InputError: a recording is missing, or the recordings do not suffice.
        """
        from tqdm import tqdm

        from audio_diffusion_pytorch.bridge.schedule_plan import remaining
        from audio_diffusion_pytorch.models.fitted_schedules import schedules_file

        assert self.model.file is not None
        output = schedules_file(self.model.file)
        tasks = self.tasks if self.arguments.again else remaining(self.tasks, self.fitted)
        where = f"{self.model.spec.name}: {len(tasks)} of {len(self.tasks)} fits, {output}"
        print(f"{where}, on {self.model.mean.device}", flush=True)
        if self.arguments.dry_run:
            print("\n".join(f"  {task}" for task in tasks))
            return
        if not tasks:
            return
        for task in (bar := tqdm(tasks, unit="fit", desc=self.model.spec.name)):
            schedule = fits.run(task, lambda error: bar.set_postfix_str(f"error {error:.4f}"))
            self.fitted = self.fitted.with_schedule(schedule)
            self.fitted.save(output)
            with tqdm.external_write_mode(file=sys.stdout):
                print(f"  {task}: error {schedule.error:.4f}, Karras {schedule.karras_error:.4f}")


def find_recordings(folders: Sequence[Path], instrument: str) -> list[Path]:
    """Find the recordings of an instrument, or else its shipped clips.

    Args:
        folders: folders of recordings.
        instrument: name of the instrument.

    Raises:
        InputError: a folder is missing, or no file has the name of the instrument.
    """
    from audio_diffusion_pytorch.data.files import find_files

    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"no such folder of recordings: --data {folder}")
    for places in (folders, [shipped_clips()]):
        with suppress(InputError):
            return find_files(places, [instrument])
    where = ", ".join(map(str, folders)) or "the shipped clips"
    raise InputError(
        f"no recording of {instrument} in {where}: give a folder of recordings with its name in "
        "the file names, with --data FOLDER"
    )


if __name__ == "__main__":
    main()
