"""`snn plugins` and `snn terms`: what listens to a run, and what may be added to its loss."""

import dataclasses

import click

from snn_core.cli.output import print_json, print_rows
from snn_core.plugins import installed, plugin_manager, registered_terms

__all__ = ["plugins", "terms"]

_NONE = "pip install snn-metrics adds operation counts, energy and sparsity"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def plugins(as_json: bool) -> None:
    """Show the installed plugins, the hooks that each implements, and what is wrong with a broken one."""
    infos = installed()
    if as_json:
        print_json({"plugins": [dataclasses.asdict(info) for info in infos]})
        return
    if not infos:
        click.echo(f"no plugins are installed; {_NONE}")
        return
    click.echo(f"installed plugins ({len(infos)})")
    print_rows(
        [
            (info.name, f"{info.package} {info.version}", info.status, info.detail or ", ".join(info.hooks))
            for info in infos
        ]
    )
    advice = [(info.name, info.remedy) for info in infos if info.remedy]
    if advice:
        click.echo("what to do")
        print_rows(advice)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def terms(as_json: bool) -> None:
    """Show the terms that installed plugins offer for the loss, each with its plugin and what it is."""
    found = registered_terms(plugin_manager())
    if as_json:
        rows = [{"name": term.name, "plugin": term.plugin, "summary": term.summary} for term in found]
        print_json({"terms": rows})
        return
    if not found:
        click.echo(f"no terms are installed; {_NONE}")
        return
    click.echo(f"terms ({len(found)})")
    print_rows([(term.name, term.plugin, term.summary) for term in found])
