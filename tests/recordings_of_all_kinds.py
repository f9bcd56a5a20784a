"""Recordings in every codec and container that FFmpeg's libraries write, for the tests."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def encode(
    target: Path | io.BytesIO,
    wav: np.ndarray,
    rate: int,
    codec: str,
    container: str,
    tags: dict[str, str] | None = None,
    tracks: int = 1,
    **options: Any,
) -> None:
    """Write wav [T] or [C, T] with `codec` in `container`; `options` are FFmpeg's.

    Args:
        tracks: how many sound tracks; all hold the same.
    """
    wav = np.atleast_2d(wav).astype(np.float32)
    layout = {1: "mono", 2: "stereo"}[len(wav)]
    name = str(target) if isinstance(target, Path) else target
    with av.open(
        name, "w", format=container, options={k: str(v) for k, v in options.items()}
    ) as out:
        out.metadata.update(tags or {})
        streams = [
            out.add_stream(codec, rate=rate, layout=layout, bit_rate=128_000) for _ in range(tracks)
        ]
        for stream in streams:
            # The last block may be short for every encoder but those that pad it themselves.
            size, fifo = stream.codec_context.frame_size or 1024, av.AudioFifo()
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(wav.T.reshape(1, -1)), "flt", layout
            )
            frame.sample_rate = rate
            for piece in av.AudioResampler(stream.format.name, layout, rate).resample(frame):
                fifo.write(piece)
            pieces = fifo.read_many(size)
            rest = fifo.read(0, partial=True)
            for place, piece in enumerate([*pieces, *([rest] if rest else []), None]):
                if piece is not None:
                    piece.pts, piece.time_base = place * size, Fraction(1, rate)
                for packet in stream.encode(piece):
                    out.mux(packet)


def bytes_of(wav: np.ndarray, rate: int, codec: str, container: str, **options: Any) -> bytes:
    """As `encode`: the file's content."""
    buffer = io.BytesIO()
    encode(buffer, wav, rate, codec, container, **options)
    return buffer.getvalue()
