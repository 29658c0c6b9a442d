"""Metrics over a dataset, for `torchmetrics`: sums over all samples of all processes, in constant memory."""

from snn_metrics.metrics.spikes import FiringRate, Latency, Sparsity
from snn_metrics.metrics.synops import Counts, LayerCounts, SynOps

__all__ = ["Counts", "FiringRate", "Latency", "LayerCounts", "Sparsity", "SynOps"]
