"""Packages of a wheel: those that setuptools finds, and folders that are mapped into them."""

from setuptools import find_packages, setup

PACKAGE = "audio_diffusion_pytorch"
MAPPED = {
    f"{PACKAGE}.configs": "configs",
    f"{PACKAGE}.exp": "exp",
    "basic_pitch_torch": "basic-pitch-torch/basic_pitch_torch",
}

setup(
    packages=[*find_packages(include=[PACKAGE, f"{PACKAGE}.*"]), *MAPPED],
    package_dir=MAPPED,
    package_data={
        "": ["**/*.yaml"],
        PACKAGE: ["assets/**", "py.typed"],
        "basic_pitch_torch": ["assets/*"],
    },
)
