"""What the device would refuse, or do otherwise than the reference, found on the host: neither an IPU nor its library
is needed.

`check` runs the composed step a few times under a watch; each finding names the line of the user's code and the remedy.
"""

from snn_backend_ipu.lint.check import check

__all__ = ["check"]
