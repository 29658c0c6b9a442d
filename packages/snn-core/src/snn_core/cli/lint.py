"""`snn lint`: what a backend would refuse, found on the host before device time is spent."""

from dataclasses import asdict
from typing import TYPE_CHECKING, List, Optional, Tuple

import click

from snn_core.backend import Finding
from snn_core.cli.output import is_terminal, print_json
from snn_core.cli.train import backend_option, changes_option

if TYPE_CHECKING:
    from snn_core.config import Config

__all__ = ["lint"]

CLEAN, FOUND = 0, 1
_COLOURS = {"error": "red", "warning": "yellow"}


@click.command()
@click.argument("config", required=False, metavar="[CONFIG.toml]")
@backend_option
@changes_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def lint(config: Optional[str], backend: Optional[str], changes: Tuple[str, ...], as_json: bool) -> int:
    """Say what the backend would refuse of the run that CONFIG.toml describes, and what it would do otherwise than the
    reference. Without a file, of the seed network's run.

    \b
      snn lint mine.toml --backend ipu
      snn lint --backend cpu --set train.precision=fp16

    Nothing is trained: the step runs a few times on this machine, on made-up samples. The backend's package must be
    installed; its device and the device's library need not be. Each finding names the line and says what to do.

    Exit codes: 0 no errors (warnings may be); 1 an error; 2 the configuration cannot be used.
    """
    from snn_core.config import load

    checked = load(config, changes, backend)
    found = _findings(checked)
    if as_json:
        print_json({"backend": checked.backend.name, "findings": [asdict(finding) for finding in found]})
    else:
        (_show_table if is_terminal() and found else _show_lines)(found)
        _print_summary(checked.backend.name, found)
    return FOUND if any(finding.severity == "error" for finding in found) else CLEAN


def _findings(config: "Config") -> List[Finding]:
    """Errors first, each in the order in which it was found."""
    from snn_core.config import build

    recipe = build(config)
    found = recipe.trainer.lint(recipe.train)
    return sorted(found, key=lambda finding: finding.severity != "error")


def _show_lines(found: List[Finding]) -> None:
    for finding in found:
        where = f"{finding.place}: " if finding.place else ""
        click.echo(f"{where}{finding.severity}: {finding.message} [{finding.rule}]")
        click.echo(f"    {finding.remedy}")


def _show_table(found: List[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("severity", "rule", "where", "what, and what to do", show_lines=True)
    for finding in found:
        said = Text.assemble(finding.message, "\n", (finding.remedy, "bold"))
        severity = Text(finding.severity, style=_COLOURS[finding.severity])
        table.add_row(severity, Text(finding.rule), Text(finding.place, overflow="fold"), said)
    Console().print(table)


def _print_summary(backend: str, found: List[Finding]) -> None:
    counts = {kind: sum(finding.severity == kind for finding in found) for kind in _COLOURS}
    parts = [f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items() if count]
    colour = "red" if counts["error"] else "yellow" if counts["warning"] else "green"
    click.echo(click.style(f"backend {backend}: {', '.join(parts) or 'nothing found'}", fg=colour, bold=True))
