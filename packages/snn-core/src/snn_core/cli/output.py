"""How every command prints: JSON and plain lines to stdout, errors and warnings to stderr."""

import json
import shutil
import sys
import textwrap
import warnings
from typing import Any, Optional, Sequence, TextIO, Tuple, Type, Union

import click

from snn_core._entry_points import PluginWarning

__all__ = ["is_terminal", "print_error", "print_json", "print_rows", "show_warnings"]


def print_json(document: Any) -> None:
    """Print one JSON document and nothing else."""
    click.echo(json.dumps(document, indent=2))


def print_error(text: str) -> None:
    """Print `text` as an error to stderr, red on a terminal."""
    click.echo(click.style("error: ", fg="red", bold=True) + text, err=True)


def print_rows(rows: Sequence[Tuple[str, ...]], indent: str = "  ") -> None:
    """Print rows in aligned columns, two blanks apart. A terminal gets the last column wrapped."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        start = indent + "".join(cell.ljust(width + 2) for cell, width in zip(row[:-1], widths))
        click.echo(_wrapped(start, row[-1]).rstrip())


def _wrapped(start: str, text: str) -> str:
    room = shutil.get_terminal_size().columns - len(start)
    if not sys.stdout.isatty() or room < 20:
        return start + text
    # Not at hyphens: `--force-reinstall` is to be copied.
    lines = textwrap.wrap(text, room, break_on_hyphens=False, break_long_words=False)
    return start + ("\n" + " " * len(start)).join(lines)


def is_terminal() -> bool:
    """Whether stdout is a terminal that can redraw what it shows."""
    if not sys.stdout.isatty():
        return False
    from rich.console import Console

    console = Console()
    return console.is_terminal and not console.is_dumb_terminal


def show_warnings() -> None:
    """Print a PluginWarning as one line without source code from now on; other warnings stay as they are."""
    before = warnings.showwarning

    def show(
        message: Union[Warning, str],
        category: Type[Warning],
        filename: str,
        lineno: int,
        file: Optional[TextIO] = None,
        line: Optional[str] = None,
    ) -> None:
        if issubclass(category, PluginWarning) and file is None:
            click.echo(click.style("warning: ", fg="yellow", bold=True) + str(message), err=True)
        else:
            before(message, category, filename, lineno, file or sys.stderr, line)

    warnings.showwarning = show
