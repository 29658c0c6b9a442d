"""What an optimiser of the host becomes on the device: for each group values that are constants or may change."""

import torch

from . import _updates, optim
from ._errors import compiler_error

UPDATES = {
    torch.optim.SGD: (optim.SGD, _updates.sgd),
    # before Adam, whose child it is in later versions of torch
    torch.optim.AdamW: (optim.AdamW, _updates.adamw),
    torch.optim.Adam: (optim.Adam, _updates.adam),
    torch.optim.RMSprop: (optim.RMSprop, _updates.rmsprop),
    optim.LAMB: (optim.LAMB, _updates.lamb),
}
# For optimisers of torch, which mark nothing: at these values an attribute is taken for a constant; lr never is.
CONSTANT_AT = {"weight_decay": 0.0, "momentum": 0.0, "dampening": 0.0, "eps": 1e-8, "max_weight_norm": 65500.0}
ALWAYS_CONSTANT = ("alpha", "betas")


class Values(dict):
    """One group's values by name, and the names of those that are constants."""

    def __init__(self, values, constants):
        super().__init__(values)
        self.constants = frozenset(constants)

    def constant(self, name):
        """Say whether a value cannot change."""
        return name in self.constants

    def replaceable_by(self, other, what):
        """Refuse another group that changes a constant, or what is one."""
        for name, value in self.items():
            if self.constant(name) != other.constant(name):
                raise replacement_error(f"{what}: {name!r} was {'a constant' if self.constant(name) else 'variable'}")
            if self.constant(name) and value != other[name]:
                raise replacement_error(f"{what}: {name!r} is a constant and cannot become {other[name]} from {value}")


class Device:
    """An optimiser as the device has it."""

    def __init__(self, optimizer, options):
        self.kind, (described, self.update) = kind_of(optimizer)
        for group in optimizer.param_groups:
            if group.get("nesterov"):
                raise ValueError("Nesterov momentum is currently not supported.")
            if group.get("amsgrad"):
                raise ValueError("Only non-amsgrad Adam/AdamW optimizers are supported.")
        marked = getattr(optimizer, "variable_attrs", None)
        if marked is not None and options._Popart.options.get("automaticLossScalingSettings.enabled"):
            marked.markAsVariable("loss_scaling")
        self.attributes = {
            name: getattr(optimizer, name, optim.DEFAULTS[name])
            for name in described._child_only
            if name not in ("loss_scaling", "velocity_scaling")
        }
        scaling = {"loss_scaling": getattr(optimizer, "loss_scaling", 1.0)}
        self.scaling = Values(scaling, constants(scaling, marked, self.kind))
        self.groups = []
        for group in optimizer.param_groups:
            values = {name: group[name] for name in described._group_vars}
            fixed = constants(values, marked, self.kind)
            if "centered" in group:
                values["centered"] = group["centered"]
                fixed.append("centered")
            self.groups.append(Values(values, fixed))

    def __eq__(self, other):
        return isinstance(other, Device) and vars(self) == vars(other)

    __hash__ = None

    def fixed(self):
        """Return what an executable holds of it: its kind, and everything but the values that may change."""
        attributes = {name: str(value) for name, value in self.attributes.items()}
        groups = [{name: value for name, value in group.items() if group.constant(name)} for group in self.groups]
        return self.kind.__name__, attributes, groups

    def replaceable_by(self, other):
        """Refuse an optimiser that the compiled program cannot use in this one's place."""
        if self.kind is not other.kind:
            raise replacement_error("Optimizer types do not match.")
        if self.attributes != other.attributes:
            raise replacement_error("Accumulation types, clip norm settings or variants do not match.")
        if len(self.groups) != len(other.groups):
            raise replacement_error("The number of groups does not match.")
        self.scaling.replaceable_by(other.scaling, "the optimizer")
        for index, (mine, theirs) in enumerate(zip(self.groups, other.groups)):
            mine.replaceable_by(theirs, f"group {index}")


def replacement_error(detail):
    """Return the compiler's error for an optimiser that changed too much."""
    return compiler_error(f"New optimizer is not a valid replacement. {detail}")


def kind_of(optimizer):
    """Return the class that the device knows, with its description and its arithmetic."""
    for kind, found in UPDATES.items():
        if isinstance(optimizer, kind):
            return kind, found
    names = "SGD, Adam, AdamW, RMSprop, LAMB"
    raise AssertionError(f"Unsupported optimizer type. Types supported {names}")


def constants(values, marked, kind):
    """Return the names that cannot change: what is not marked, or for torch's optimisers what has its usual value."""
    if marked is not None:
        return [name for name in values if marked.isConstant(name)]
    usual = dict(CONSTANT_AT, loss_scaling=1.0)
    if kind is torch.optim.AdamW:
        usual["weight_decay"] = 1e-2
    return [name for name, value in values.items() if name in ALWAYS_CONSTANT or usual.get(name) == value]
