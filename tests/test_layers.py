"""The layers of the package: a package imports only from packages below its own."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = "audio_diffusion_pytorch"
LAYERS = [  # top to bottom; packages in one row do not import each other
    {"__main__"},
    {"commands"},
    {"app"},
    {"live"},
    {"training", "transfer", "evaluation", "compat", "render"},
    {"bridge", "data"},
    {"models", "metrics", "plots"},
    {"codecs", "pitch"},
    {"diffusion", "audio"},
    {"cli", "completion", "engine"},
    {"utils"},
    {"command_line"},
    {"errors", "instruments", "paths", "__version__"},
]
LEVEL = {package: -row for row, packages in enumerate(LAYERS) for package in packages}
MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))


def imported_packages(tree: ast.AST) -> Iterator[str]:
    """Packages that a module imports from, inside functions and for type checks as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (
                a.name.split(".")[1] for a in node.names if a.name.startswith(f"{PACKAGE}.")
            )


def upward_imports(package: str, source: str) -> list[str]:
    return [
        other
        for other in imported_packages(ast.parse(source))
        if other != package and LEVEL[other] >= LEVEL[package]
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    package = path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py")
    if package != "__init__":  # its names load lazily
        assert upward_imports(package, path.read_text(encoding="utf-8")) == []


def test_an_import_from_above_or_beside_is_found() -> None:
    assert upward_imports("bridge", f"from {PACKAGE}.training.ema import EMA") == ["training"]
    assert upward_imports("bridge", f"def f():\n    import {PACKAGE}.data.files") == ["data"]
    assert upward_imports("bridge", f"from {PACKAGE} import plots") == []


def test_every_folder_has_a_layer() -> None:
    folders = {path.parent.name for path in (ROOT / PACKAGE).glob("*/__init__.py")}
    assert folders <= LEVEL.keys()
