"""The house look of every plot: matplotlib without pyplot, two colours, few lines."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FIRST", "SECOND", "house_style", "new_figure"]

FIRST, SECOND = "#1f5fa8", "#d9731a"
"""Colours of the first and the second thing shown; they differ for colour-blind eyes and in grey too."""

_STYLE: Any = {
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "legend.frameon": False,
}


def house_style() -> Any:
    """A context in which figures are drawn in the house look; matplotlib's own settings stay as they are."""
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def new_figure(width_inches: float, height_inches: float) -> "Figure":
    """An empty figure, laid out by itself."""
    # no pyplot: it keeps figures in a global list and may ask for a display
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), layout="constrained")
