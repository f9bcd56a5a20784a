"""Options of a rendering run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from audio_diffusion_pytorch.engine.engine import Engine


@dataclass(frozen=True)
class RenderOptions:
    """Arguments of the command, in the order of its manifest.

    Attributes:
        output: folder to write.
        instruments: names of the instruments.
        soundfont: SoundFonts; None: the installed ones.
        samples: folder of recorded notes, which play instead of SoundFonts; None: SoundFonts play.
        seed: seed of the split, the parts and the performances.
        splits: splits to render.
        paired: whether all instruments play the same performances.
        takes: performances of each part.
        parts_per_piece: mean number of parts of a piece that an instrument plays.
        pieces: number of pieces; None: all.
        studies: number of studies over the whole range of each instrument.
        engine: executor of the clips.
        dry_run: count clips and write nothing.
    """

    output: Path
    instruments: list[str]
    soundfont: list[Path] | None
    samples: Path | None
    seed: int
    splits: list[str]
    paired: bool
    takes: int
    parts_per_piece: float
    pieces: int | None
    studies: int
    engine: Engine
    dry_run: bool

    @property
    def groups(self) -> list[list[str]]:
        """Groups of instruments that share their performances: all if paired, else single ones."""
        return [self.instruments] if self.paired else [[name] for name in self.instruments]
