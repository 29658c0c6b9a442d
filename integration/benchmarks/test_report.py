"""The table, the plot and the command's arguments."""

import io
from pathlib import Path

import cases
import plot
import pytest
import run
import table
from ratios import Cell, Row
from rich.console import Console

ROWS = [
    Row("a", "seed network", 1, "ms", {"cpu": Cell(10.0, 1.0, 1.0, 1.0), "Norse": Cell(25.0, 2.5, 2.0, 3.0)}),
    Row("a", "seed network", 2, "ms", {"cpu": Cell(5.0, 1.0, 1.0, 1.0), "Norse": Cell(error="KeyError: 'x'")}),
    Row("c", "LIF, T = 500, both", 2, "share", {"cpu": Cell(0.25, remark="other spikes")}),
    Row("c", "LIF, T = 16, forward", 2, "share", {"cpu": Cell(0.75)}),
    Row("e", "seed network, T = 10", 2, "ms", {"cpu": Cell(1.0, 1.0)}),
    Row("e", "seed network, T = 10, memory", 2, "MB", {"cpu": Cell(100.0, 1.0), "Norse": Cell(320.0, 3.2)}),
    Row("f", "first step, cold cache", 2, "s", {"cpu": Cell(3.5, 1.0)}),
    Row("g", "sinabs' tutorial", 2, "added", {"cpu": Cell(0.125), "hooks": Cell(-0.01)}),
]
LABELS = list(cases.LABELS)


def printed(rows: "list[Row]") -> str:
    file = io.StringIO()
    table.show(Console(file=file, width=190), "the title", rows, LABELS)
    return file.getvalue()


@pytest.mark.parametrize("shown", ["25 ms", "2.50x", "320 MB", "3.20x", "3.50 s", "+12.5%", "-1.0%", "the title"])
def test_the_table_shows_each_value_in_its_unit(shown: str) -> None:
    assert shown in printed(ROWS)


def test_the_neurons_table_goes_by_steps_and_forward_comes_first() -> None:
    text = printed(ROWS)
    assert text.index("T = 16, forward") < text.index("T = 500, both")
    assert "0.25*" in text


def test_an_error_is_a_dash_and_said_below_with_its_place() -> None:
    text = printed(ROWS)
    assert "-*" in text
    assert text.count("* Norse: KeyError: 'x' (a seed network)") == 1


def test_a_side_that_took_no_part_has_no_column() -> None:
    assert "sinabs," not in printed(ROWS)


@pytest.mark.parametrize("letters", ["a", "c", "e", "f", "g", "acefg"])
def test_the_plot_is_drawn_of_whatever_was_measured(letters: str, tmp_path: Path) -> None:
    plot.save(tmp_path / "plot.png", "the title", [row for row in ROWS if row.letter in letters], LABELS)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_sides_of_one_library_have_colours_of_their_own() -> None:
    assert len({plot.colour(label) for label in LABELS}) == len(LABELS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "a,z"], "--only has 'z'; it takes a, b, c, d, e, f, g"),
        (["--peers", "rockpool"], "--peers has 'rockpool'; it takes snntorch, spikingjelly, norse, sinabs"),
        (["--peers", "norse"], "no Python is named for norse: run `nox -s bench`"),
        (["--peers", "", "--python", "norse"], "--python takes PEER=PATH"),
    ],
)
def test_an_argument_that_cannot_be_met_is_refused(words, said, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run.arguments(words)
    assert said in " ".join(capsys.readouterr().err.split())


def test_without_compilation_no_compiled_side_takes_part() -> None:
    words = ["--peers", "norse", "--python", "norse=/n", "--no-compile"]
    assert list(run.sides(run.arguments(words))) == ["cpu", "eager", "hooks", "Norse"]
    assert list(run.sides(run.arguments(words[:-1]))) == ["cpu", "eager", "hooks", "Norse", "Norse, compiled"]


@pytest.mark.parametrize("quick", [True, False])
def test_every_letter_has_its_cases_and_the_base_takes_part(quick: bool) -> None:
    found = [*cases.cases(quick, most=True), *cases.steps_and_memory(quick)]
    assert {case.letter for case in found} == set(cases.CASES) - {"f"}
    for case in found:
        assert cases.BASE in case.labels
        assert set(case.labels) <= set(cases.LABELS)


def test_steps_grow_because_a_peak_of_memory_does() -> None:
    steps = [case.settings["steps"] for case in cases.steps_and_memory(quick=False)]
    assert steps == [10, 30, 100, 300, 1000]


def test_fewer_threads_leave_out_the_compiled_sides_and_one_size() -> None:
    whole = {case.title: case for case in cases.cases(False, most=True) if case.letter != "c"}
    less = {case.title: case for case in cases.cases(False, most=False) if case.letter != "c"}
    # the larger size of b is the one case that is left out
    assert whole.keys() - less.keys() == {"Linear(2048, 2048) + LIF"}
    for title, case in less.items():
        assert case.labels == [label for label in whole[title].labels if "compiled" not in label]
