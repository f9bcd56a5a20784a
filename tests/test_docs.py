"""Documentation: links, files and modules exist; code parses; commands use known options."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from audio_diffusion_pytorch.codecs.loading import CODECS
from audio_diffusion_pytorch.compat.moved import MOVED, RENAMED
from audio_diffusion_pytorch.diffusion.sampling import SOLVERS
from audio_diffusion_pytorch.evaluation.extensions import METRICS, TRACKERS
from audio_diffusion_pytorch.models.networks import NETWORKS

PACKAGE = "audio_diffusion_pytorch"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
# First parts of the paths that pages name: folders of the repository, and packages of `PACKAGE`.
FOLDERS = (PACKAGE, "basic-pitch-torch", "benchmarks", "configs", "docs", "exp", "scripts", "tests")
PACKAGES = (
    *(
        "app",
        "audio",
        "bridge",
        "codecs",
        "commands",
        "compat",
        "data",
        "diffusion",
        "evaluation",
        "metrics",
        "models",
    ),
    *("engine", "live", "pitch", "render", "training", "transfer", "utils"),
)
SUFFIXES = (".py", ".yaml", ".md", ".ipynb", ".toml", ".cff")
ELSEWHERE = {
    "my_package.py",
    "config.yaml",
    "results.md",
}  # of users, of a run folder, of an evaluation
ROOTS = {
    "train": "config",
    "transfer": "transfer",
    "evaluate": "evaluate",
    "live": "live",
    "app": "app",
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@cache
def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def blocks(page: Path, language: str) -> list[str]:
    return [
        text for name, text in FENCE.findall(page.read_text(encoding="utf-8")) if name == language
    ]


@cache
def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE)
    kept = (
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
        for heading in headings
    )
    return {heading.replace(" ", "-") for heading in kept}


@pages
def test_links_and_anchors_exist(page):
    broken = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def named(page: Path) -> list[str]:
    return [code for text in re.findall(r"`([^`\n]+)`", prose(page)) for code in text.split()]


def is_path(name: str) -> bool:
    """Whether inline code names a file or folder of this repository.

    Capitals and brackets stand for any name.

    `data/chorales` is rendered data, not a part of the package `data`.
    """
    if (
        re.search(r"[<>{}*=|$\"'(),:\[\]]|[A-Z]{2}|\.\.\.|^data/chorales", name)
        or name in ELSEWHERE
    ):
        return False
    first = name.split("/")[0]
    return ("/" in name and first in (*FOLDERS, *PACKAGES)) or (
        "/" not in name and name.endswith(SUFFIXES)
    )


@pages
def test_named_files_exist(page):
    places = ROOT, ROOT / PACKAGE, page.parent
    missing = [
        name
        for name in named(page)
        if is_path(name) and not any((place / name).exists() for place in places)
    ]
    assert not missing


@pages
def test_named_modules_exist(page):
    dotted = re.findall(rf"\b{PACKAGE}((?:\.\w+)+)", prose(page))
    assert not [name for name in dotted if not found(name[1:].split("."))]


def found(parts: list[str]) -> bool:
    """Whether the parts of a dotted name lead to a module, or to a name in a module."""
    path = ROOT / PACKAGE
    while parts and (path / parts[0]).is_dir():
        path, parts = path / parts[0], parts[1:]
    if parts and (path / f"{parts[0]}.py").is_file():
        path, parts = path / f"{parts[0]}.py", parts[1:]
    return not parts or parts[0] in names_in(path if path.is_file() else path / "__init__.py")


@cache
def names_in(module: Path) -> set[str]:
    """Names that a module binds, imports or lists at its top level."""
    names = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name) for alias in node.names}
        else:
            names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            names |= {
                part.value for part in ast.walk(node) if isinstance(part, ast.Constant)
            }  # of lazy exports
    return names


@pages
def test_python_blocks_parse_and_import_what_exists(page):
    for text in blocks(page, "python"):
        for node in ast.walk(compile(text, page.name, "exec", ast.PyCF_ONLY_AST)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
                for alias in node.names:
                    assert found([*node.module.split(".")[1:], alias.name]), (
                        f"{node.module}.{alias.name}"
                    )


def test_examples_of_extending_run():
    registries = SOLVERS, CODECS, NETWORKS, METRICS, TRACKERS
    before = [dict(registry) for registry in registries]
    space: dict = {"__name__": "my_package"}
    for text in blocks(ROOT / "docs" / "extending.md", "python"):
        exec(compile(text, "extending.md", "exec"), space)
    try:
        assert space["bridge_by_midpoint"]().solver == "midpoint"
    finally:
        for registry, parts in zip(registries, before, strict=True):
            registry.clear()
            registry.update(parts)


def test_migrating_lists_every_moved_module_and_renamed_name():
    text = prose(ROOT / "docs" / "migrating.md")
    for old, (new, *_) in MOVED.items():
        assert f"| `{old}` | `{new.replace('.', '/')}.py` |" in text
    for old, new in RENAMED.items():
        assert f"| `{old}` | `{new}` |" in text


def commands(page: Path) -> Iterator[list[str]]:
    """Words of the command lines in the page's `bash` blocks, with their variables replaced."""
    for text in blocks(page, "bash"):
        for name, value in re.findall(r'^ *(\w+)="(.*)"$', text, re.MULTILINE):
            text = re.sub(rf"\$\{{?{name}\}}?", lambda _, value=value: value, text)
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|; do ", line.partition(" # ")[0]):
                try:
                    words = shlex.split(part, comments=True)
                except ValueError:  # a loop over several lines
                    continue
                if words:
                    yield words


@cache
def settings(verb: str, experiment: str | None) -> dict:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        overrides = (
            [f"hydra.searchpath=[file://{ROOT},file://{ROOT / 'exp'}]"] if verb == "train" else []
        )
        overrides += [f"exp={experiment}"] if experiment else []
        return OmegaConf.to_container(compose(ROOTS[verb], overrides), resolve=False)


def known(key: str, config: dict) -> bool:
    node = config
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def unknown_settings(verb: str, words: list[str]) -> list[str]:
    given = [
        word.partition("=")[0]
        for word in words
        if "=" in word and not word.startswith(("-", "+", "$"))
    ]
    experiment = next((word[4:] for word in words if word.startswith("exp=")), None)
    experiment = (
        re.sub(r"\$\{?i\}?|NAME|,.*", lambda m: "" if m[0][0] == "," else "flute", experiment or "")
        or None
    )
    groups = {"exp", "launcher", *(path.name for path in (ROOT / "exp").iterdir() if path.is_dir())}
    config = settings(verb, experiment if experiment != "EXPERIMENT" else None)
    return [
        key
        for key in given
        if not (
            key in groups
            or key.startswith(("hydra.", "model/"))
            or "$" in key
            or known(key, config)
        )
    ]


@pages
def test_commands_exist_and_know_their_settings(page, monkeypatch):
    monkeypatch.setenv("PROJECT_ROOT", str(ROOT))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in commands(page):
        script = next((word for word in words if word.endswith(".py")), None)
        verb = words[1] if words[0] == "timbridge" and len(words) > 1 else Path(script or "").stem
        if words[0] == "make":
            targets = [word for word in words[1:] if "=" not in word]
            assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), (
                words
            )
        elif verb in ROOTS:
            assert not unknown_settings(verb, words), words
        elif script is not None:
            sources = [
                ROOT / script,
                *(f for d in ("commands", "render") for f in (ROOT / PACKAGE / d).glob("*.py")),
            ]
            text = "".join(path.read_text(encoding="utf-8") for path in sources)
            assert (ROOT / script).is_file(), script
            assert not [
                word for word in words if word.startswith("--") and f'"{word}"' not in text
            ], words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bridge/windows.py", True),
        ("exp/NAME.yaml", False),
        ("logs/my_flute", False),
        ("train.py", True),
        ("dataset_path=FOLDER", False),
        ("docs/results.md", True),
        ("exp/NAME_small.yaml", False),
        ("data/chorales/test", False),
        ("data/files.py", True),
    ],
)
def test_names_of_files_are_told_from_other_code(text, expected):
    assert is_path(text) is expected


def test_a_wrong_setting_is_found(monkeypatch):
    monkeypatch.setenv("PROJECT_ROOT", str(ROOT))
    words = shlex.split(
        "python train.py exp=flute_small model.learning_rate=1 dataset_path=x +anything=1 "
        "trainer=cpu"
    )
    assert unknown_settings("train", words) == ["model.learning_rate"]
