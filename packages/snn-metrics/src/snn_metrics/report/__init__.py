"""Reports of trained networks: operations counted layer by layer, plots, and one page with all of it."""

from snn_metrics.report.activity import Activity, watch
from snn_metrics.report.counts import Energy, LayerCounts, NeuronLayer, SynOpsReport, count_operations
from snn_metrics.report.history import History, TermInfo, Tradeoff, read_history, synops_course
from snn_metrics.report.plots import plot_losses, plot_raster, plot_rates, plot_synops, plot_tradeoff

__all__ = [
    "Activity",
    "Energy",
    "History",
    "LayerCounts",
    "NeuronLayer",
    "SynOpsReport",
    "TermInfo",
    "Tradeoff",
    "count_operations",
    "plot_losses",
    "plot_raster",
    "plot_rates",
    "plot_synops",
    "plot_tradeoff",
    "read_history",
    "synops_course",
    "watch",
]
