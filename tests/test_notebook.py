"""The notebook: executed on the CPU, and committed with its outputs."""

import nbformat
from conftest import ROOT
from nbclient import NotebookClient


def read():
    return nbformat.read(ROOT / "inference.ipynb", as_version=4)


def test_committed_with_outputs():
    cells = [cell for cell in read().cells if cell.cell_type == "code"]
    kinds = {kind for cell in cells for output in cell.outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds  # spectrograms and players
    assert not [
        output for cell in cells for output in cell.outputs if output.output_type == "error"
    ]


def test_is_small():
    assert (ROOT / "inference.ipynb").stat().st_size < 1.5e6


def test_runs():
    notebook = read()
    settings = next(cell for cell in notebook.cells if "SIGMAS = " in cell.source)
    assert "SIGMAS = [1.0, 2.0, 4.0, 8.0]" in settings.source
    settings.source = settings.source.replace("[1.0, 2.0, 4.0, 8.0]", "[2.0]")
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": ROOT}}
    ).execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "DPD" in printed and "noise spread" in printed
