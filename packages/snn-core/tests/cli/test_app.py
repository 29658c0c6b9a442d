"""The command `snn` as a whole: help, exit codes, errors without tracebacks, other packages' commands."""

import re
import subprocess
from typing import TYPE_CHECKING

import click
import pytest

from snn_core.cli import app, main

if TYPE_CHECKING:
    from conftest import Packages


FAILING = """
import click
from snn_core.errors import ConfigError, TrainingInterrupted

@click.command()
def fail():
    raise {error}
"""


def _fail(packages: "Packages", error: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `snn fail`, another package's command, which raises `error`."""
    packages.add("failing", modules={"failing": FAILING.format(error=error)}, commands={"fail": "failing:fail"})
    return packages.snn(*(arguments or ("fail",)))


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_every_command_and_imports_none(packages: "Packages", arguments: tuple) -> None:
    done = packages.python("-X", "importtime", "-m", "snn_core", *arguments)
    assert done.returncode == 0
    for name, command in app.COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert command.help in done.stdout
        assert command.target.split(":")[0] not in done.stderr
    for heavy in ("torch", "numpy", "rich", "pydantic"):
        assert f" {heavy}\n" not in done.stderr


def test_every_command_of_the_table_exists_under_its_name() -> None:
    ctx = click.Context(app.snn)
    for name in app.COMMANDS:
        command = app.snn.get_command(ctx, name)
        assert isinstance(command, click.Command)
        assert command.name == name
        assert command.help


def test_the_version_is_the_package_s(packages: "Packages") -> None:
    assert packages.snn("--version").stdout == "snn-core 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bakends"], "error: no command 'bakends' (did you mean 'backends'?); commands are train, eval, "),
        (["backends", "--jsn"], "(see `snn backends --help`)"),
        (["backends", "extra"], "extra"),
        (["backends", "--timeout", "soon"], "'soon' is not a valid float"),
        (["backends", "--timeout", "nan"], "error: the time for each probe is nan s; it must be above 0"),
    ],
)
def test_wrong_usage_is_one_line_on_stderr_and_exit_code_2(
    installed: "Packages", arguments: list, message: str, capsys: pytest.CaptureFixture
) -> None:
    installed.add_backend("cpu")
    assert main(arguments) == 2
    stderr = capsys.readouterr().err
    assert message in stderr
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1


def test_a_typed_error_is_one_line_without_traceback_and_exit_code_2(packages: "Packages") -> None:
    done = _fail(packages, "ConfigError('threads is 0; it must be 1 or more')")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: threads is 0; it must be 1 or more\n"


@pytest.mark.parametrize("arguments", [("--traceback", "fail"), ("fail", "--traceback")])
def test_a_traceback_is_shown_when_asked_before_or_after_the_command(packages: "Packages", arguments: tuple) -> None:
    done = _fail(packages, "ConfigError('threads is 0')", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("\nerror: threads is 0\n")


def test_an_unexpected_error_is_told_as_a_bug_and_exit_code_1(packages: "Packages") -> None:
    done = _fail(packages, "ZeroDivisionError('division by zero')")
    assert done.returncode == 1
    assert done.stderr == (
        "error: unexpected ZeroDivisionError: division by zero; this is a bug in snn or in a plugin; "
        "add --traceback to see where\n"
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("KeyboardInterrupt", "interrupted"),
        ("TrainingInterrupted('stopped; resume: snn resume run')", "error: stopped; resume: snn resume run"),
    ],
)
def test_an_interrupt_exits_130_and_keeps_its_message(packages: "Packages", error: str, message: str) -> None:
    done = _fail(packages, error)
    assert (done.returncode, done.stderr.strip()) == (130, message)


COMMAND = """
import click

@click.command()
def hello():
    "Say hello."
    click.echo("hello")
"""


def test_another_package_s_command_runs_and_is_listed_without_being_imported(packages: "Packages") -> None:
    packages.add("more", modules={"more_commands": COMMAND}, commands={"hello": "more_commands:hello"})
    assert packages.snn("hello").stdout == "hello\n"
    listed = packages.python("-X", "importtime", "-m", "snn_core", "--help")
    assert re.search(r"^  hello +From package more\.$", listed.stdout, re.MULTILINE)
    assert "more_commands" not in listed.stderr
    assert "no command 'helo' (did you mean 'hello'?)" in packages.snn("helo").stderr


def test_another_package_s_broken_command_breaks_itself_only(packages: "Packages") -> None:
    packages.add("more", modules={"more_commands": "import no_such_thing"}, commands={"hello": "more_commands:hello"})
    done = packages.snn("hello")
    assert done.returncode == 2
    assert done.stderr == (
        "error: command 'hello' (package more 1.0) cannot be imported: ModuleNotFoundError: No module named "
        "'no_such_thing'; install what it lacks: pip install --upgrade more\n"
    )
    assert packages.snn("--help").returncode == 0
    assert packages.snn("plugins").returncode == 0


def test_another_package_s_command_that_is_none_is_refused(packages: "Packages") -> None:
    packages.add("more", commands={"hello": "json:loads"})
    done = packages.snn("hello")
    assert done.returncode == 2
    assert "json:loads is <function loads" in done.stderr
    assert "not a click command" in done.stderr


def test_core_s_commands_cannot_be_taken_over(packages: "Packages") -> None:
    packages.add("more", modules={"more_commands": COMMAND}, commands={"plugins": "more_commands:hello"})
    assert "no plugins are installed" in packages.snn("plugins").stdout
