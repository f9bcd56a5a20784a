r"""Render a training set from Bach chorales: a FLAC clip for each part, with its notes as JSON.

The command reads the chorales of the music21 corpus, transposes each part into the range of an
instrument, draws a performance from a seed (tempo, timing, velocity, swells, vibrato), and plays it
with FluidSynth and a SoundFont:

    python scripts/render_dataset.py --output data/chorales --instruments flute violin
    python scripts/render_dataset.py --output data/paired --instruments flute violin \
        --splits test --paired

A clip is OUTPUT/<split>/<instrument>/<piece>_<part>_t<take>_<instrument>.flac, 24 kHz mono. The
.json of the same name has its "notes": [onset, offset, MIDI pitch], in seconds; legato notes
overlap by up to 50 ms. manifest.json describes the run. All chorales on one tune are in the same
split, which depends only on the tune and the seed.

Requires music21 and pyfluidsynth (pip install music21 pyfluidsynth), the FluidSynth library and a
General MIDI SoundFont.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.render.arguments import parse_options
from audio_diffusion_pytorch.render.dataset import Summary, render_dataset
from audio_diffusion_pytorch.render.player import SoundFontError
from audio_diffusion_pytorch.render.requirements import check_libraries, find_soundfonts

GIGABYTES_PER_HOUR = 0.09


def main(argv: list[str] | None = None) -> None:
    """Run the command; `argv`: its arguments, None: those of the process."""
    output = None
    try:
        options = parse_options(argv, __doc__)
        output = options.output
        synthesises = not options.dry_run and options.samples is None
        soundfonts = find_soundfonts(options.soundfont) if synthesises else ()
        check_libraries(synthesises, options.pieces != 0)
        show(render_dataset(options, soundfonts))
    except OSError as error:
        fail(f"cannot write to {output}: {error.strerror or error}")
    except (InputError, SoundFontError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("render_dataset: interrupted: repeat the command to continue", file=sys.stderr)
        raise SystemExit(130) from None


def show(table: Summary) -> None:
    """Print a summary."""
    cells = [(split, name, cell) for split, row in table.items() for name, cell in row.items()]
    for split, name, cell in cells:
        print(f"{split:6} {name:12} {cell['clips']:6} clips {cell['hours']:7.2f} h")
    clips = sum(cell["clips"] for _, _, cell in cells)
    hours = sum(cell["hours"] for _, _, cell in cells)
    print(f"{'total':19} {clips:6} clips {hours:7.2f} h, about {hours * GIGABYTES_PER_HOUR:.2f} GB")


def fail(message: str) -> NoReturn:
    """Print one line on stderr, and exit with status 2."""
    print(f"render_dataset: error: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
