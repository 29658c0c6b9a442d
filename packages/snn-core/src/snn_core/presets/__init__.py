"""Other libraries' neurons, spike for spike: their names, arguments and defaults, our neurons.

One module for each library: `snntorch`, `snntorch_ipu`, `spikingjelly`, `sinabs`, `norse`. `docs/presets.md` says
what each class becomes, against which version it was checked, and what is refused and why. None of them needs the
library installed.
"""

from snn_core.presets import norse, sinabs, snntorch, snntorch_ipu, spikingjelly

__all__ = ["norse", "sinabs", "snntorch", "snntorch_ipu", "spikingjelly"]
