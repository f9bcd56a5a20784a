"""Write the weights of basic_pitch_torch from the basic-pitch 0.4.0 wheel (Apache-2.0).

The script downloads the wheel without its dependencies (an old TensorFlow), checks the hashes of
the wheel and of the model, and does not install the wheel. It requires the `onnx` package (in the
`dev` extra).
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "basic-pitch-torch" / "basic_pitch_torch" / "assets"

REQUIREMENT = "basic-pitch==0.4.0"
WHEEL_SHA256 = "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0"
MODEL_SHA256 = "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec"
MODEL = "basic_pitch/saved_models/icassp_2022/nmp.onnx"
LICENSE = "basic_pitch-0.4.0.dist-info/LICENSE"
NOTICE = "basic_pitch-0.4.0.dist-info/NOTICE"

CHANGES = f"""
----------------------------------------------------------------------
basic_pitch.safetensors in this folder holds the weights of the model file
{MODEL} of the Python package basic-pitch 0.4.0
(sha256 {MODEL_SHA256}),
licensed under the Apache License, Version 2.0 (see LICENSE). Changed: the
tensors were renamed, reshaped and stored in the safetensors format; their
values are unchanged. No other file of that package is part of this one.
"""

# our name -> (name, shape) in the graph of the model file, which has folded convolution biases and
# batch norms
TENSORS = {
    "cqt.lowpass": ("const_fold_opt__734", (256,)),
    "cqt.scale": ("model_1/cq_t2010v2_1/Sqrt;model_1/cq_t2010v2_1/Sqrt", (309,)),
    "norm_scale": (
        "model_1/batch_normalization/FusedBatchNormV3;model_1/batch_normalization/FusedBatchNormV3",
        (),
    ),
    "norm_shift": (
        "model_1/batch_normalization/FusedBatchNormV3;model_1/batch_normalization/FusedBatchNormV31",
        (),
    ),
    "contour_in.weight": ("const_fold_opt__727", (8, 8, 3, 39)),
    "contour_in.bias": ("model_1/re_lu_1/Relu;", (8,)),
    "contour_out.weight": ("const_fold_opt__710", (1, 8, 5, 5)),
    "contour_out.bias": ("model_1/contours-reduced/BiasAdd/ReadVariableOp;", (1,)),
    "note_in.weight": ("const_fold_opt__738", (32, 1, 7, 7)),
    "note_in.bias": ("model_1/conv2d_2/BiasAdd/ReadVariableOp;", (32,)),
    "note_out.weight": ("const_fold_opt__702", (1, 32, 7, 3)),
    "note_out.bias": ("model_1/conv2d_3/BiasAdd/ReadVariableOp;", (1,)),
    "onset_in.weight": ("const_fold_opt__707", (32, 8, 5, 5)),
    "onset_in.bias": ("model_1/re_lu_3/Relu;", (32,)),
    "onset_out.weight": ("const_fold_opt__680", (1, 33, 3, 3)),
    "onset_out.bias": ("model_1/conv2d_5/BiasAdd/ReadVariableOp;", (1,)),
}
# constant-Q kernels: real and imaginary part
KERNELS = ("const_fold_opt__655", "const_fold_opt__664")


def download(folder: Path) -> Path:
    """Download the wheel to a folder.

    Raises:
        InputError: pip failed.
    """
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(folder),
    ]
    result = subprocess.run([*command, REQUIREMENT], capture_output=True, text=True)
    wheels = sorted(folder.glob("basic_pitch-*.whl"))
    if result.returncode != 0 or not wheels:
        raise InputError(
            f"pip could not download {REQUIREMENT}:\n{result.stderr.strip()}\n(use a local file "
            "with --wheel)"
        )
    return wheels[0]


def check(data: bytes, expected: str, name: str) -> bytes:
    """Return data if its SHA-256 is as expected.

    Raises:
        InputError: the hash differs.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise InputError(f"{name} is another file: sha256 {found}, expected {expected}")
    return data


def read_wheel(path: Path) -> dict[str, bytes]:
    """Read the model, its licence and its notice as bytes.

    Raises:
        InputError: the file is missing, or another file.
    """
    if not path.is_file():
        raise InputError(f"file not found: {path}")
    check(path.read_bytes(), WHEEL_SHA256, str(path))
    with zipfile.ZipFile(path) as wheel:
        files = {name: wheel.read(name) for name in (MODEL, LICENSE, NOTICE)}
    check(files[MODEL], MODEL_SHA256, MODEL)
    return files


def convert(model: bytes) -> bytes:
    """Convert ONNX bytes to safetensors bytes.

    Raises:
        InputError: onnx is not installed, or a tensor is missing or has another shape.
    """
    try:
        import onnx
    except ImportError as error:
        raise InputError('this script needs the onnx package: pip install -e ".[dev]"') from error
    import numpy as np
    from safetensors.numpy import save

    graph = onnx.load_model_from_string(model).graph
    stored = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}

    def find(name: str, shape: tuple[int, ...]) -> np.ndarray:
        keys = [name]
        if name not in stored:
            keys = [key for key in stored if name.endswith(";") and key.startswith(name)]
        if len(keys) != 1 or stored[keys[0]].size != np.prod(shape, dtype=int):
            raise InputError(f"the model file lacks tensor {name!r} of shape {shape}")
        return np.ascontiguousarray(stored[keys[0]].reshape(shape), dtype=np.float32)

    tensors = {ours: find(*theirs) for ours, theirs in TENSORS.items()}
    tensors["cqt.kernel"] = np.stack([find(name, (36, 256)) for name in KERNELS])
    source = f"{REQUIREMENT} {MODEL} sha256:{MODEL_SHA256}, Apache-2.0, Copyright 2022 Spotify AB"
    return save({name: tensors[name] for name in sorted(tensors)}, metadata={"source": source})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--wheel",
        type=Path,
        help="local wheel of basic-pitch 0.4.0 (default: download it with pip)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=ASSETS,
        help="folder to write to (default: the package's assets)",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if the files would change"
    )
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = read_wheel(options.wheel or download(Path(folder)))
        outputs = {
            "basic_pitch.safetensors": convert(files[MODEL]),
            "LICENSE": files[LICENSE],
            "NOTICE": files[NOTICE].rstrip() + b"\n" + CHANGES.encode(),
        }
        for name, data in outputs.items():
            path = options.output / name
            if options.check:
                if not path.is_file() or path.read_bytes() != data:
                    raise InputError(f"{path} differs from the conversion of the model file")
            else:
                with atomic_write(path) as temporary:
                    temporary.write_bytes(data)
            print(f"{'unchanged' if options.check else 'wrote'} {path} ({len(data)} bytes)")
    except (InputError, OSError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
