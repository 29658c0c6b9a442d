"""PopTorch's optimisers: arguments, and which of them are constants of the compiled program."""

import torch

TYPES = (torch.float16, torch.float32)


class VariableAttributes:
    """Says which attributes of an optimiser may change once the program is compiled."""

    def __init__(self, variable_attributes, allowed_attributes):
        self._variable_attributes = variable_attributes
        self._allowed_attributes = allowed_attributes

    def isConstant(self, attr):
        """Say whether an attribute is a constant."""
        return attr not in self._variable_attributes

    def markAsConstant(self, attr):
        """Make an attribute a constant."""
        self._check(attr)
        self._variable_attributes = [name for name in self._variable_attributes if name != attr]

    def markAsVariable(self, attr):
        """Let an attribute change."""
        self._check(attr)
        self._variable_attributes.append(attr)

    def _check(self, attr):
        assert attr in self._allowed_attributes, f"Unknown attribute {attr}, allowed values: {self._allowed_attributes}"


class Optimizer:
    """What all optimisers of PopTorch share: their state is the device's, under `ipu_state` and `ipu_param`."""

    _child_only = ()

    def __init__(self):
        self._state_dict = {"ipu_state": None, "ipu_param": None}
        self.ipu_state_is_dirty = False
        self.host_state_is_dirty = False

    def _start(self, parent, given):
        given = {name: value for name, value in given.items() if name not in ("self", "__class__")}
        passed = {name: value for name, value in given.items() if value is not None}
        Optimizer.__init__(self)
        parent.__init__(self, **{name: value for name, value in passed.items() if name not in self._child_only})
        for name in self._child_only:
            value = given[name] if given[name] is not None else DEFAULTS[name]
            assert not name.endswith("accum_type") or value in TYPES, (
                "Accumulation types must be either torch.float32 or torch.float16"
            )
            setattr(self, name, value)
        # what the caller passed is variable, what he left at its default is a constant
        self.variable_attrs = VariableAttributes(list(passed), [*self.defaults, "loss_scaling"])

    def state_dict(self):
        """Return the state; an executor puts its own in this place, which reads the device first."""
        return self.get_state_dict()

    def load_state_dict(self, state):
        """Take a state; it goes to the device at the next run."""
        self.set_state_dict(state)
        torch.optim.Optimizer.load_state_dict(self, state)

    def get_state_dict(self):
        """Return the state that the host has."""
        return {**self._state_dict, **torch.optim.Optimizer.state_dict(self)}

    def set_state_dict(self, state):
        """Take a state that was made by an optimiser of PopTorch."""
        if not state:
            raise RuntimeError("Cannot load optimizer state dictionary because it is empty.")
        if not ("ipu_state" in state and "ipu_param" in state):
            raise RuntimeError("Only IPU optimizer states can be loaded onto the IPU.")
        self._state_dict = state
        self.ipu_state_is_dirty = True
        self.host_state_is_dirty = False

    def has_state(self):
        """Say whether there is a state that a device had."""
        return self._state_dict.get("ipu_state") is not None and self._state_dict.get("ipu_param") is not None


DEFAULTS = {
    "loss_scaling": 1.0,
    "velocity_scaling": 1.0,
    "use_combined_accum": False,
    "accum_type": torch.float32,
    "velocity_accum_type": torch.float32,
    "first_order_momentum_accum_type": torch.float32,
    "second_order_momentum_accum_type": torch.float32,
    "max_grad_norm": float("inf"),
    "bias_correction": True,
    "use_tf_variant": False,
}


class SGD(Optimizer, torch.optim.SGD):
    """Stochastic gradient descent."""

    _group_vars = ("lr", "momentum", "dampening", "weight_decay")
    _child_only = (
        "loss_scaling",
        "velocity_scaling",
        "use_combined_accum",
        "accum_type",
        "velocity_accum_type",
        "max_grad_norm",
    )

    def __init__(
        self,
        params,
        lr,
        momentum=None,
        dampening=None,
        weight_decay=None,
        nesterov=None,
        maximize=None,
        foreach=None,
        differentiable=None,
        loss_scaling=None,
        velocity_scaling=None,
        use_combined_accum=None,
        accum_type=None,
        velocity_accum_type=None,
        max_grad_norm=None,
    ):
        self._start(torch.optim.SGD, dict(locals()))


class Adam(Optimizer, torch.optim.Adam):
    """Adam with the weight decay in the gradient."""

    _group_vars = ("lr", "betas", "eps", "weight_decay")
    _child_only = (
        "loss_scaling",
        "accum_type",
        "first_order_momentum_accum_type",
        "second_order_momentum_accum_type",
        "max_grad_norm",
    )

    def __init__(
        self,
        params,
        lr=None,
        betas=None,
        eps=None,
        weight_decay=None,
        amsgrad=None,
        foreach=None,
        maximize=None,
        capturable=None,
        differentiable=None,
        fused=None,
        loss_scaling=None,
        accum_type=None,
        first_order_momentum_accum_type=None,
        second_order_momentum_accum_type=None,
        max_grad_norm=None,
    ):
        self._start(torch.optim.Adam, dict(locals()))


class AdamW(Optimizer, torch.optim.AdamW):
    """Adam with the weight decay apart from the gradient."""

    _group_vars = ("lr", "betas", "eps", "weight_decay")
    _child_only = ("loss_scaling", "bias_correction", *Adam._child_only[1:])

    def __init__(
        self,
        params,
        lr=None,
        betas=None,
        eps=None,
        weight_decay=None,
        amsgrad=None,
        maximize=None,
        foreach=None,
        capturable=None,
        differentiable=None,
        fused=None,
        loss_scaling=None,
        bias_correction=None,
        accum_type=None,
        first_order_momentum_accum_type=None,
        second_order_momentum_accum_type=None,
        max_grad_norm=None,
    ):
        self._start(torch.optim.AdamW, dict(locals()))


class RMSprop(Optimizer, torch.optim.RMSprop):
    """RMSprop; it has no max_grad_norm."""

    _group_vars = ("lr", "momentum", "weight_decay", "alpha", "eps")
    _child_only = (
        "loss_scaling",
        "accum_type",
        "first_order_momentum_accum_type",
        "second_order_momentum_accum_type",
        "use_tf_variant",
    )

    def __init__(
        self,
        params,
        lr=None,
        alpha=None,
        eps=None,
        weight_decay=None,
        momentum=None,
        centered=None,
        foreach=None,
        maximize=None,
        differentiable=None,
        loss_scaling=None,
        accum_type=None,
        first_order_momentum_accum_type=None,
        second_order_momentum_accum_type=None,
        use_tf_variant=None,
    ):
        self._start(torch.optim.RMSprop, dict(locals()))


class LAMB(Optimizer, torch.optim.Optimizer):
    """Layer-wise adaptive moments."""

    _group_vars = ("lr", "weight_decay", "betas", "eps", "max_weight_norm")
    _child_only = (
        "bias_correction",
        "loss_scaling",
        "accum_type",
        "first_order_momentum_accum_type",
        "second_order_momentum_accum_type",
    )

    def __init__(
        self,
        params,
        lr=None,
        betas=None,
        eps=None,
        weight_decay=None,
        bias_correction=None,
        loss_scaling=None,
        max_weight_norm=None,
        accum_type=None,
        first_order_momentum_accum_type=None,
        second_order_momentum_accum_type=None,
    ):
        given = dict(locals())
        groups = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2, "max_weight_norm": 65500.0}
        for name in groups:
            groups[name] = groups[name] if given[name] is None else given[name]
        passed = [name for name, value in given.items() if name != "self" and value is not None]
        Optimizer.__init__(self)
        torch.optim.Optimizer.__init__(self, params, groups)
        for name in self._child_only:
            setattr(self, name, DEFAULTS[name] if given[name] is None else given[name])
        self.variable_attrs = VariableAttributes(passed, [*self.defaults, "loss_scaling"])
