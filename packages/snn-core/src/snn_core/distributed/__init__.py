"""Several processes, on one machine or more, that train one model together through torch.distributed."""

from snn_core.distributed.mean import GlobalMean
from snn_core.distributed.processes import Processes, expected, is_lost, join, speaks
from snn_core.distributed.replica import Alone, Part, Replica, replica
from snn_core.distributed.shares import share

__all__ = [
    "Alone",
    "GlobalMean",
    "Part",
    "Processes",
    "Replica",
    "expected",
    "is_lost",
    "join",
    "replica",
    "share",
    "speaks",
]
