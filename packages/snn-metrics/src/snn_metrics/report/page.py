"""The report as one page of HTML that needs nothing beside it: images and styles are inside."""

import base64
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Mapping, NamedTuple, Sequence, Tuple

from snn_core.errors import RunFolderError
from snn_core.trainer.folder import writing
from snn_metrics.report.counts import SynOpsReport
from snn_metrics.report.numbers import count, joules, percent
from snn_metrics.report.table import COLUMNS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Image", "inline", "render", "require_place", "write_page"]

_MEANINGS = (
    ("synops", "|activation| x fan-out: a spike of size 3 counts three times"),
    ("dense", "every weight in every step, zero activations too"),
    ("effective", "activations that are not 0, each for every weight that it meets"),
    ("sparse", "the same, and only weights that are not 0"),
    ("acs", "accumulates: activations of 1 or -1"),
    ("macs", "multiply-accumulates: other activations that are not 0"),
)
_MARK = "snn report"


class Image(NamedTuple):
    """A figure of the page. source: a data URI.   alt: what it shows, for those who do not see it."""

    source: str
    alt: str
    caption: str


def inline(figure: "Figure", alt: str, caption: str) -> Image:
    """Turn a figure into an image inside the page."""
    import matplotlib

    file = io.BytesIO()
    # the same figure gives the same bytes: no date, and no random names
    with matplotlib.rc_context({"svg.hashsalt": "snn"}):
        figure.savefig(file, format="svg", dpi=150, metadata={"Date": None})
    return Image("data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode("ascii"), alt, caption)


def render(
    title: str,
    subtitle: str,
    report: SynOpsReport,
    facts: Sequence[Tuple[str, str]],
    images: Sequence[Image],
    settings: str,
) -> str:
    """Return the page. facts: names and values of the run.   settings: its configuration, as text."""
    import jinja2

    loader = jinja2.PackageLoader("snn_metrics.report", ".")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters.update(count=count, joules=joules)
    values: Mapping[str, Any] = {
        "title": title,
        "subtitle": subtitle,
        "generator": _MARK,
        "report": report,
        "columns": COLUMNS,
        "meanings": _MEANINGS,
        "key": _key(report),
        "facts": facts,
        "images": images,
        "settings": settings,
    }
    return environment.get_template("page.html").render(values)


def _key(report: SynOpsReport) -> List[Tuple[str, str]]:
    accuracy = [] if report.accuracy is None else [(percent(report.accuracy), "accuracy")]
    return [
        *accuracy,
        (count(report.total.synops_per_sample), "synops_per_sample"),
        (count(report.total.synops_per_step), "synops_per_step"),
        *((joules(item.joules_per_sample), f"energy_per_sample, {item.cost.name}") for item in report.energy[:1]),
    ]


def require_place(path: Path) -> None:
    """Raise RunFolderError where no page can stand, or where something stands that is no report."""
    if not path.absolute().parent.is_dir():
        raise RunFolderError(f"cannot write {path}: its folder does not exist; make it, or choose another --output")
    with writing(path):
        if path.exists() and f'content="{_MARK}"' not in path.read_text(encoding="utf-8", errors="replace")[:1000]:
            raise RunFolderError(f"{path} exists and is no report of `snn report`; move it, or choose another --output")


def write_page(path: Path, text: str) -> None:
    """Write a page, over an earlier report but over nothing else, in one step. Raises RunFolderError."""
    require_place(path)
    with writing(path):
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
