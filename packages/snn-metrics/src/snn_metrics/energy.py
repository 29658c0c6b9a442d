"""Energy from counted operations, by published costs of one operation. No figure without a source.

A cost says what one accumulate (AC: a weight is added) and one multiply-accumulate (MAC: a weight is multiplied by a
graded value, then added) take. The costs are of two sorts, which must not be compared with each other:

- arithmetic: the adder and the multiplier alone. Reading weights and states, moving spikes, neurons, control, clock and
  leakage are left out, and on most machines they take more than the arithmetic does;
- a chip's synaptic event: what one spike takes at one synapse of that chip, memory included. A chip of spikes has no
  MAC, so it prices none.

Each entry's `note` says which it is. Joules from such a table rank networks on one machine; they are not a measurement.
"""

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Mapping, Optional, TypeVar

from torch import Tensor

from snn_core.errors import ConfigError, DataError, nearest

__all__ = ["COSTS", "OperationCost", "cost_named", "energy"]

_PICO = 1e-12

Count = TypeVar("Count", float, Tensor)


@dataclass(frozen=True)
class OperationCost:
    """What one operation takes on one machine, and who says so.

    name: unique, such as "horowitz-2014-fp32-45nm".       ac_pj: picojoules of one accumulate.
    mac_pj: of one multiply-accumulate; None where the source prices none.
    process_nm: the process node.                           number_format: of the operands, such as "fp32".
    citation: authors, title, venue, year, and where the figure stands there.
    note: what the figure includes and leaves out.
    Raises ConfigError without a citation, or for a cost or node that is not a positive finite number.
    """

    name: str
    ac_pj: float
    mac_pj: Optional[float]
    process_nm: float
    number_format: str
    citation: str
    note: str = ""

    def __post_init__(self) -> None:
        for field in ("name", "number_format", "citation"):
            value = getattr(self, field)
            if not isinstance(value, str) or not value.strip():
                why = ": no figure without a source" if field == "citation" else ""
                raise ConfigError(f"OperationCost.{field} is {value!r}; it must be a text that is not empty{why}")
        costs = {"ac_pj": self.ac_pj, "process_nm": self.process_nm}
        if self.mac_pj is not None:
            costs["mac_pj"] = self.mac_pj
        for field, number in costs.items():
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < math.inf:
                raise ConfigError(f"{self.name}: {field} is {number!r}; it must be a positive finite number")


def energy(acs: Count, macs: Count, cost: OperationCost) -> Count:
    """Joules of so many accumulates and multiply-accumulates. Numbers, or tensors of any one shape -> the same.

    Raises ConfigError where there are MACs and the cost prices none, DataError for a negative count.
    """
    if not isinstance(cost, OperationCost):
        raise ConfigError(f"cost is {cost!r}; give an OperationCost: an own one, COSTS[...], or cost_named(...)")
    for name, count in (("acs", acs), ("macs", macs)):
        if _any(count < 0):
            raise DataError(f"{name} is {count}; a number of operations cannot be negative")
    if cost.mac_pj is None:
        if _any(macs != 0):
            raise ConfigError(
                f"{cost.name} prices spikes of one size and no multiply-accumulate, but there are {macs} MACs (inputs "
                "that are neither 0 nor 1 nor -1); take an arithmetic cost, such as "
                "COSTS['horowitz-2014-fp32-45nm'], or give the network spikes of one size only, its input included"
            )
        return acs * (cost.ac_pj * _PICO)
    return acs * (cost.ac_pj * _PICO) + macs * (cost.mac_pj * _PICO)


def cost_named(name: str) -> OperationCost:
    """The published cost of that name. Raises ConfigError, with the names that there are."""
    if name not in COSTS:
        raise ConfigError(f"there is no cost {name!r}{nearest(name, COSTS)}; there are {', '.join(COSTS)}")
    return COSTS[name]


def _any(condition: object) -> bool:
    return bool(condition.any()) if isinstance(condition, Tensor) else bool(condition)


_ARITHMETIC = (
    "Arithmetic alone: AC is one add, MAC one multiply and one add in the same format. No memory, no data movement, no "
    "control, no leakage."
)
_HOROWITZ = (
    'M. Horowitz, "Computing\'s Energy Problem (and what we can do about it)", IEEE International Solid-State Circuits '
    "Conference (ISSCC), 2014, pp. 10-14, Fig. 1.1.9 (45 nm, 0.9 V)"
)
_JOUPPI = (
    'N. P. Jouppi et al., "Ten Lessons From Three Generations Shaped Google\'s TPUv4i: Industrial Product", ACM/IEEE '
    "International Symposium on Computer Architecture (ISCA), 2021, pp. 1-14, Table 2 (7 nm)"
)
_MEROLLA = (
    'P. A. Merolla et al., "A million spiking-neuron integrated circuit with a scalable communication network and '
    'interface", Science 345(6197), 2014, pp. 668-673'
)
_DAVIES = (
    'M. Davies et al., "Loihi: A Neuromorphic Manycore Processor with On-Chip Learning", IEEE Micro 38(1), 2018, '
    "pp. 82-99, Table 2"
)


def _arithmetic(source: str, number_format: str, nm: int, add_pj: float, multiply_pj: float) -> OperationCost:
    citation = {"horowitz-2014": _HOROWITZ, "jouppi-2021": _JOUPPI}[source]
    note = _ARITHMETIC
    if number_format == "int8":
        note += " The add is one of 8 bits: sums of 8-bit weights need wider adders, which take more."
    # sums of decimals, such as 0.9 + 3.7, are rounded to the decimals of the source
    mac_pj = round(add_pj + multiply_pj, 6)
    return OperationCost(f"{source}-{number_format}-{nm}nm", add_pj, mac_pj, nm, number_format, citation, note)


COSTS: Mapping[str, OperationCost] = MappingProxyType(
    {
        cost.name: cost
        for cost in (
            _arithmetic("horowitz-2014", "fp32", 45, add_pj=0.9, multiply_pj=3.7),
            _arithmetic("horowitz-2014", "fp16", 45, add_pj=0.4, multiply_pj=1.1),
            _arithmetic("horowitz-2014", "int32", 45, add_pj=0.1, multiply_pj=3.1),
            _arithmetic("horowitz-2014", "int8", 45, add_pj=0.03, multiply_pj=0.2),
            _arithmetic("jouppi-2021", "fp16", 7, add_pj=0.16, multiply_pj=0.34),
            _arithmetic("jouppi-2021", "bf16", 7, add_pj=0.11, multiply_pj=0.21),
            _arithmetic("jouppi-2021", "int8", 7, add_pj=0.007, multiply_pj=0.07),
            OperationCost(
                "merolla-2014-truenorth-28nm",
                ac_pj=26.0,
                mac_pj=None,
                process_nm=28,
                number_format="binary spikes, TrueNorth synapses",
                citation=_MEROLLA,
                note="Measured: the power of the whole chip, leakage, memory, neurons and network of spikes included, "
                "over its synaptic events, at one operating point (20 Hz, 128 active synapses a neuron, 0.775 V). A "
                "network that fires less pays the same leakage over fewer events.",
            ),
            OperationCost(
                "davies-2018-loihi-14nm",
                ac_pj=23.6,
                mac_pj=None,
                process_nm=14,
                number_format="binary spikes, weights of 1 to 9 bits",
                citation=_DAVIES,
                note='The minimum ("min") of one synaptic operation, from simulation of the circuit before silicon. '
                "Left out: updates of neurons (52 to 81 pJ each, same table), transport of spikes, learning, leakage.",
            ),
        )
    }
)
"""Published costs by name, each with its source: what energy() takes."""
