"""The rules: what each means on the device and what to do instead, and which function of torch falls under which."""

from typing import Dict, List, NamedTuple, Optional, Tuple

from snn_core.backend import Finding
from snn_core.lower.refusal import Place

__all__ = ["ASKING", "LOSSES", "RULES", "VALUE_SHAPED", "Findings", "Rule"]


class Rule(NamedTuple):
    """message: with `{what}` for what was found.   severity: "error" or "warning"."""

    message: str
    remedy: str
    severity: str = "error"


_LOCAL_STATE = "make the state in forward, keep it in local variables and return it, or write it as a snn.Neuron"
_WHERE = "compute both and choose between whole tensors: torch.where(condition, a, b)"

RULES: Dict[str, Rule] = {
    "control-flow": Rule("{what} chooses a path in Python by a tensor's value; the device has one path", _WHERE),
    "host-value": Rule(
        "{what} reads a tensor's value into Python; the device has no values yet when it is compiled",
        "keep it a tensor; for what the host is to see, return it or measure it with a term",
    ),
    "constant-index": Rule(
        "{what} takes a tensor's value for an index, a slice's bound or a size, and these are constants on the device",
        "use whole numbers of Python, or torch.index_select or torch.gather where the index is computed",
    ),
    "host-move": Rule(
        "{what} moves a tensor to another device in the middle of the step",
        "leave it out: the backend moves the batch and the results; for a new tensor use device=x.device",
    ),
    "device-name": Rule(
        "the step fails where the device of its tensors is called 'ipu': {what}",
        "leave the device's name out of the model, or give that one a case; for a new tensor use device=x.device",
    ),
    "value-shape": Rule("{what} gives a tensor whose shape depends on values, and shapes are fixed", _WHERE),
    "masked-write": Rule(
        "a boolean index stands beside another index where a tensor is written; the device writes by a mask alone, "
        "x[mask] = value",
        _WHERE,
    ),
    "changing-graph": Rule(
        "{what}; the device runs forward once, while it compiles, and repeats what that call did",
        "let every call do the same operations on the same shapes, whatever the values and however often it is called",
    ),
    "module-state": Rule(
        "{what} carries values from one call of the model to the next; on the device it freezes as a constant",
        _LOCAL_STATE,
    ),
    "module-write": Rule(
        "{what} is written while the model runs; the device runs forward once, so that the host sees one value only",
        "keep it in a local variable; for what the host is to see, return it or measure it with a term",
        "warning",
    ),
    "buffer-reassigned": Rule(
        "{what} is given another tensor while the model runs, which the device refuses",
        "make the state in forward and keep it local, or write into a floating-point buffer in place",
    ),
    "integer-buffer": Rule(
        "{what} is written while the model runs; integer and boolean buffers freeze as constants on the device",
        "count on the host in a callback, or use a floating-point buffer",
    ),
    "replica-buffer": Rule(
        "{what} is written while the model runs; each replica writes its own, from its own share of a batch",
        "use one replica, or a layer without running statistics, where that matters",
        "warning",
    ),
    "parameter-written": Rule(
        "{what} is written while the model runs; the device has weights of its own, which the optimiser alone changes",
        "compute what the layer needs from the weight: F.linear(x, self.weight.clamp(-1, 1))",
    ),
    "custom-autograd": Rule(
        "the backward of {what} is ignored on the device, which makes gradients from the forward alone, so that what "
        "lies before it would not train as meant",
        "for a spike use snn.surrogate.spike(u, surrogate); in place of torch's checkpoint the backend's option "
        "recomputation; else value.detach() + slope.detach() * (u - u.detach())",
    ),
    "no-grad": Rule(
        "{what} runs under torch.no_grad; that the device's compiler cuts the gradient there cannot be relied on",
        "use .detach() on what is to have no gradient",
        "warning",
    ),
    "data": Rule(
        "{what} goes around the gradient; that the device's compiler does so too cannot be relied on",
        "use .detach()",
        "warning",
    ),
    "backward-in-forward": Rule(
        "{what} asks for a gradient of the model's; the device makes the backward pass itself, and runs no hook",
        "make it a part of the loss or a term",
    ),
    "weighted-loss": Rule(
        "the device has no class weights in cross entropy and NLL",
        "use a loss of snn_core with class_weights, or weigh the losses of the samples yourself",
    ),
    "second-loss": Rule(
        "{what} is a loss of torch that is no part of the objective; the device takes every such one for a final loss, "
        "and there can be one only",
        "write the metric with plain arithmetic: (a - b).square().mean(); or make it a term",
    ),
    "host-tensor": Rule(
        "{what} takes a tensor that is not on the device: no parameter, buffer or input, and made outside the "
        "step, or in it by a function to which poptorch gives no device, such as torch.eye or torch.from_numpy",
        "self.register_buffer(name, tensor) in a module of the model (a loss's own buffers stay on the host), make it "
        "in forward with device=x.device: torch.eye(n, device=x.device), or move it there: tensor.to(x.device)",
    ),
    "unregistered-layer": Rule(
        "{what} uses a weight of a layer that the model does not know as its own, so that it is neither trained nor on "
        "the device",
        "make the layer an attribute of its module, or keep several in nn.ModuleList or nn.ModuleDict, not in a list",
    ),
    "layer-setting": Rule("{what}", "use another setting, or another layer"),
    "unfit-tensor": Rule(
        "{what}, and the device takes plain tensors of real numbers, with one element or more",
        "for a value that is not trained register_buffer(name, tensor.detach()); leave an empty one out; keep complex "
        "numbers as two tensors",
    ),
    "max-pool-indices": Rule(
        "the device's max pool gives no indices", "pool without return_indices; to undo it use F.interpolate"
    ),
    "float64": Rule(
        "{what} is made in the step; the device computes with 32 bits in its place", "use torch.float32", "warning"
    ),
    "complex": Rule("{what} is made in the step, and the device has no complex numbers", "keep both parts as tensors"),
    "mixed-precision": Rule(
        "{what}: under precision 'fp16' the operands are of two types, which torch does not take there",
        "where a state in float32 meets a layer, convert it: layer(spikes.to(layer.weight.dtype)); or write the neuron "
        "as a snn.Neuron, which converts at its ends",
    ),
    "cumsum": Rule(
        "cumsum becomes a convolution on the device: its cost grows with the square of the length",
        "for a long axis add up in the time loop",
        "warning",
    ),
    "host-random": Rule(
        "{what} draws on the host while the model runs; on the device that number freezes as a constant",
        "draw with torch inside the step: torch.rand_like(x)",
    ),
    "own-generator": Rule(
        "{what} draws from a generator of its own; the device has one stream of random numbers, and another seed's",
        "leave generator= out; the run's seed is TrainSpec.seed",
        "warning",
    ),
    "not-repeatable": Rule(
        "two calls on the same batch with the same random numbers gave different results, for a reason that was not "
        "found; the device repeats what the first call did",
        "let the model's result depend on its input and its weights alone",
    ),
    "not-watched": Rule(
        "the step runs and could not be watched, so that rules may be broken of which nothing is said here: {what}",
        "look at that place yourself, or tell the authors of snn-backend-ipu",
        "warning",
    ),
    "short-batch": Rule(
        "{what}",
        "choose factors whose product divides the number of samples, or leave it: each epoch leaves out others",
        "warning",
    ),
}
"""By name. That a number is random is no finding; only where it comes from is."""

_READS = {
    "control-flow": {
        "__bool__": "a branch, `and`, `not` or `assert`",
        "is_nonzero": "is_nonzero()",
        "__contains__": "`in`",
        "equal": "torch.equal",
        "allclose": "torch.allclose",
    },
    "host-value": {
        "item": ".item()",
        "tolist": ".tolist()",
        "numpy": ".numpy()",
        "__array__": "a function of numpy",
        "__float__": "float()",
        "__int__": "int()",
        "__complex__": "complex()",
        "__format__": "a text made of a tensor",
        "__repr__": "a text made of a tensor",
    },
    "constant-index": {"__index__": "an expression"},
    "backward-in-forward": {
        "backward": ".backward()",
        "register_hook": "register_hook",
        "grad": "torch.autograd.grad",
    },
    "max-pool-indices": {f"max_pool{n}d_with_indices": "max_pool" for n in (1, 2, 3)},
}

ASKING: Dict[str, Tuple[str, str]] = {
    name: (rule, what) for rule, names in _READS.items() for name, what in names.items()
}
"""By the name of torch's function: the rule that it breaks whatever it is given, and what to call it."""

VALUE_SHAPED = {
    "nonzero": "nonzero, or torch.where with a condition alone,",
    "argwhere": "argwhere",
    "masked_select": "masked_select",
    "_unique2": "unique",
    "_unique": "unique",
    "unique_dim": "unique",
    "unique_consecutive": "unique_consecutive",
    "unique_dim_consecutive": "unique_consecutive",
    "bincount": "bincount",
}
"""By the name of the operation: what to call it."""

LOSSES = ("cross_entropy", "kl_div", "binary_cross_entropy", "binary_cross_entropy_with_logits")
"""Losses of torch that are not called `..._loss`."""


class Findings:
    """What was found, once for each rule and line, in the order in which it was met."""

    def __init__(self) -> None:
        self._found: Dict[Tuple[str, Optional[Place], str], Finding] = {}

    def add(self, rule: str, place: Optional[Place], what: str = "", severity: str = "") -> None:
        """what: fills the rule's message.   severity: another one than the rule's."""
        text = RULES[rule]
        message = text.message.format(what=what)
        file, line = place if place is not None else (None, None)
        # one line may make several layers
        key = (rule, place, message if place is None or rule in ("layer-setting", "unfit-tensor") else "")
        self._found.setdefault(key, Finding(rule, message, text.remedy, file, line, severity or text.severity))

    def has(self, *rules: str) -> bool:
        """Whether one of these rules was broken."""
        return any(finding.rule in rules for finding in self._found.values())

    def has_errors(self) -> bool:
        """Whether something was found that `compile` refuses."""
        return any(finding.severity == "error" for finding in self._found.values())

    def at(self, place: Optional[Place]) -> bool:
        """Whether something was found at this line."""
        return place is not None and any(found == place for _, found, _ in self._found)

    def all(self) -> List[Finding]:
        return list(self._found.values())
