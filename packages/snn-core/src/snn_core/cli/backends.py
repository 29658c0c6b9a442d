"""`snn backends`: what the metadata tells at once, then each probe's result as it comes, then what to do."""

from typing import Any, Callable, Dict, Iterator, List, Mapping

import click

from snn_core import registry
from snn_core._entry_points import REINSTALL_CORE
from snn_core.backend import API_VERSION
from snn_core.choosing import best
from snn_core.cli.output import is_terminal, print_json, print_rows
from snn_core.probing import ProbeResult, probe_all
from snn_core.registry import BackendInfo

__all__ = ["backends"]

_COLOURS = {"ready": "green", "unavailable": "yellow", "incompatible": "red", "broken": "red", "conflict": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each backend's probe may take.",
)
def backends(as_json: bool, timeout_s: float) -> None:
    """Show the installed backends (devices) and which of them are ready.

    Each is probed in a process of its own, all at once, so that a broken one disturbs nothing. A status is one of

    \b
      ready         it can train now
      unavailable   it works, but its device or driver is not here
      incompatible  its package was written for another version of snn-core
      broken        its package cannot be imported, crashes or hangs
      conflict      two packages register its name
    """
    infos = registry.available()
    if as_json:
        results = {result.info.name: result for result in probe_all(infos.values(), timeout_s)}
        print_json(_document(infos, results))
        return
    if not infos:
        click.echo(f"no backend is installed, not even core's own; {REINSTALL_CORE}")
        return
    show = _show_table if is_terminal() else _show_lines
    _print_advice(show(infos, timeout_s))


def _show_lines(infos: Mapping[str, BackendInfo], timeout_s: float) -> Dict[str, ProbeResult]:
    click.echo(f"installed backends ({len(infos)})")
    print_rows([(info.name, " + ".join(info.packages)) for info in infos.values()])
    click.echo(f"probing each in a process of its own, {timeout_s:g} s at most")
    width = max(map(len, infos))
    results = {}
    for result in probe_all(infos.values(), timeout_s):
        results[result.info.name] = result
        api = f"API {result.api}" if result.api is not None else "API ?"
        found = f"{result.detail} " if result.detail else ""
        click.echo(f"  {result.info.name:{width}}  {result.status:12}  {api}  {found}({result.seconds:.1f} s)")
    return results


def _show_table(infos: Mapping[str, BackendInfo], timeout_s: float) -> Dict[str, ProbeResult]:
    from rich.live import Live

    results: Dict[str, ProbeResult] = {}
    table = _table_maker(infos, results)
    with Live(get_renderable=table, refresh_per_second=8) as live:
        for result in probe_all(infos.values(), timeout_s):
            results[result.info.name] = result
            live.refresh()
    return results


def _table_maker(infos: Mapping[str, BackendInfo], results: Mapping[str, ProbeResult]) -> Callable[[], Any]:
    from rich.spinner import Spinner
    from rich.table import Table
    from rich.text import Text

    spinner = Spinner("dots", "probing")  # one for all rows, so that it turns instead of starting again at every redraw

    def table() -> Table:
        made = Table(
            "backend", "package", "API", "status", "what was found", title="installed backends", title_justify="left"
        )
        for info in infos.values():
            result = results.get(info.name)
            packages = Text("\n".join(info.packages))
            if result is None:
                made.add_row(Text(info.name), packages, "", spinner, "")
            else:
                status = Text(result.status, style=_COLOURS[result.status])
                api = "?" if result.api is None else str(result.api)
                made.add_row(Text(info.name), packages, api, status, Text(result.detail))
        return made

    return table


def _print_advice(results: Mapping[str, ProbeResult]) -> None:
    advice = [(name, results[name].remedy) for name in sorted(results) if results[name].remedy]
    if advice:
        click.echo("what to do")
        print_rows(advice)
    chosen = best(results.values())
    if chosen is None:
        click.echo("no backend is ready, so nothing can be trained yet")
    else:
        click.echo(f"--backend auto picks {chosen}")


def _document(infos: Mapping[str, BackendInfo], results: Mapping[str, ProbeResult]) -> Dict[str, Any]:
    return {"api": API_VERSION, "auto": best(results.values()), "backends": list(_entries(infos, results))}


def _entries(infos: Mapping[str, BackendInfo], results: Mapping[str, ProbeResult]) -> Iterator[Dict[str, Any]]:
    for name, info in infos.items():
        result = results[name]
        rivals: List[Dict[str, str]] = [
            {"package": rival.package, "version": rival.version, "entry_point": rival.value} for rival in info.rivals
        ]
        yield {
            "name": name,
            "package": info.package,
            "version": info.version,
            "entry_point": info.value,
            "rivals": rivals,
            "api": result.api,
            "status": result.status,
            "priority": result.priority,
            "detail": result.detail,
            "remedy": result.remedy,
            "seconds": round(result.seconds, 3),
        }
