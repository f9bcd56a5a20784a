"""Tables as text, Markdown and LaTeX."""

import re

import pytest
from test_aggregate import groups

from audio_diffusion_pytorch.evaluation import tables

ODD = "a|b & 50 % of $x_1#{y}~^\\ <\n[z] *\udcff"
TABLE = [
    ["pair", "DPD ↓", "RCA ↑"],
    [ODD, "0.1 [0.0, 0.2]", "1"],
    ["[x]", "-", "-"],
    ["* y", "-", "2"],
]


def test_headings_point_to_what_is_better():
    found = groups([("flute", "violin")])
    main, *_ = tables.main_table(found)
    assert main == [
        "system",
        "target accuracy ↑",
        "DPD ↓",
        "RCA ↑",
        "log-mel ↓",
        "Frechet ↓",
        "s per s ↓",
        "pairs",
        "clips",
    ]
    assert tables.pair_table(found)[0][3:5] == ["target accuracy ↑", "DPD ↓"]
    assert tables.heading("noise_spread", "spread") == "spread"  # best at 1
    assert [row[0] for row in tables.main_table(found[::-1])[1:]] == [
        "true performance",
        "identity",
        "bridge",
    ]


def test_columns_without_a_figure_are_left_out():
    kept = tables.without_empty_columns(tables.main_table(groups([("flute", "violin")])))
    assert (
        "s per s ↓" not in kept[0]
        and "Frechet ↓" in kept[0]
        and len({len(row) for row in kept}) == 1
    )


def test_markdown():
    head, rule, *rows = tables.markdown(TABLE).splitlines()
    assert (head, rule) == ("| pair | DPD ↓ | RCA ↑ |", "| :--- | ---: | ---: |")
    cells = [re.split(r"(?<!\\)\|", row)[1:-1] for row in rows]
    assert [len(row) for row in cells] == [3, 3, 3]
    plain = re.sub(r"\\([\\`*_|<>\[\]])", r"\1", cells[0][0]).strip()
    assert plain == ODD.replace("\n", " ").replace("\udcff", "\\udcff")


def plain_latex(text: str) -> str:
    """What TeX would set; fails where it would not."""
    for command, character in {
        **{r"\textbackslash{}": "BACKSLASH", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^"},
        **{
            r"\textless{}": "<",
            r"\textgreater{}": ">",
            r"\textbar{}": "|",
            r"$\uparrow$": "↑",
            r"$\downarrow$": "↓",
        },
    }.items():
        text = text.replace(command, character)
    found = re.sub(r"\\([&%$#_{}])", lambda match: f"<{ord(match[1])}>", text)
    assert not re.search(r"[\\&%$#_{}]", found), found  # every special character is escaped
    return re.sub(r"<(\d+)>", lambda match: chr(int(match[1])), found).replace("BACKSLASH", "\\")


def test_latex():
    """Its structure, row by row; without TeX."""
    lines = tables.latex(TABLE, "100 % of a_b").splitlines()
    assert lines[:5] == [
        r"\begin{table}",
        r"\centering",
        r"\caption{100 \% of a\_b}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
    ]
    assert lines[6] == r"\midrule" and lines[10:] == [
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    rows = [lines[5], *lines[7:10]]
    assert all(row.endswith(r" \\") for row in rows)
    assert rows[2].startswith("{}[x]") and rows[3].startswith(
        "{}*"
    )  # no argument of the line break before
    cells = [
        [plain_latex(cell) for cell in re.split(r"(?<!\\) & ", row[:-3].removeprefix("{}"))]
        for row in rows
    ]
    assert cells[0] == TABLE[0] and cells[1][1:] == TABLE[1][1:] and cells[2:] == TABLE[2:]
    assert cells[1][0] == ODD.replace("\n", " ").replace("\udcff", "\\udcff")


@pytest.mark.parametrize("targets", [False, True])
def test_every_table_is_rectangular(targets):
    from audio_diffusion_pytorch.evaluation import results
    from audio_diffusion_pytorch.evaluation.problems import Problems

    found = groups()
    content = results.collect(found, {}, "small codec", Problems(), {"targets": targets})
    shown = dict(results.all_tables(found, content))
    assert ("bridge: targets" in shown) == targets and len(shown) == 3 + targets
    assert next(iter(shown)).startswith("Systems and reference points")
    assert all(len({len(row) for row in table}) == 1 for table in shown.values())
