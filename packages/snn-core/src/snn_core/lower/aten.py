"""The operations of torch that a step may use, each in terms of the graph's scalar operations.

Each translation takes a `Translator` and the call's arguments, nodes for tensors and plain numbers for numbers. They
keep the order of torch's CPU kernels, so that float32 results are the same bits; `Lowered.exact` tells where they may
not be. Conditions count as 0 and 1: whether the result is a condition again is for the trace to say.
"""

from typing import Any, Callable, Dict, Optional

import torch

from snn_core.lower.builder import Builder

__all__ = ["ALIASES", "QUESTIONS", "TRANSLATIONS", "Translator"]


class Translator:
    """Emits operations for values that are nodes (`Ref`) or Python numbers."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder

    def __call__(self, op: str, *args: Any) -> "Ref":
        """One arithmetic operation: conditions count as 0 and 1."""
        return Ref(self.builder.emit(op, *(self.builder.number(self.index(arg)) for arg in args)))

    def logic(self, op: str, *args: Any) -> "Ref":
        return Ref(self.builder.emit(op, *(self.builder.condition(self.index(arg)) for arg in args)))

    def where(self, condition: Any, a: Any, b: Any) -> "Ref":
        emit, number = self.builder.emit, self.builder.number
        return Ref(
            emit("where", self.builder.condition(self.index(condition)), number(self.index(a)), number(self.index(b)))
        )

    def index(self, value: Any) -> int:
        if isinstance(value, Ref):
            return value.index
        return self.builder.truth(value) if isinstance(value, bool) else self.builder.constant(value)


class Ref:
    """A node of the graph under construction."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


Translation = Callable[..., Ref]


def _scaled(sign: str) -> Translation:
    """a + alpha b or a - alpha b, rounded once, as torch does where b is a whole tensor."""

    def translate(e: Translator, a: Any, b: Any, alpha: float = 1) -> Ref:
        if alpha == 1:
            return e(sign, a, b)
        if alpha == -1:
            return e("add" if sign == "sub" else "sub", a, b)
        return e("fma", b, alpha if sign == "add" else -alpha, a)

    return translate


def _reversed_sub(e: Translator, a: Any, b: Any, alpha: float = 1) -> Ref:
    return _scaled("sub")(e, b, a, alpha)


def _addcmul(e: Translator, a: Any, b: Any, c: Any, value: float = 1) -> Ref:
    return e("fma", b if value == 1 else e("mul", b, value), c, a)


def _div(e: Translator, a: Any, b: Any, rounding_mode: Optional[str] = None) -> Ref:
    """a / b, or that truncated. Raises TypeError for "floor"."""
    if rounding_mode == "floor":
        raise TypeError("torch corrects a floor by the remainder; write torch.floor(a / b)")
    quotient = e("div", a, b)
    return quotient if rounding_mode is None else e("trunc", quotient)


def _pow(e: Translator, base: Any, exponent: Any) -> Ref:
    if isinstance(exponent, Ref) or isinstance(base, (int, float)):
        return e("pow", base, exponent)
    whole: Dict[float, Callable[[], Any]] = {
        0: lambda: e("add", 1, 0),
        1: lambda: base,
        2: lambda: e("mul", base, base),
    }
    whole[3] = lambda: e("mul", e("mul", base, base), base)
    whole[-1] = lambda: e("div", 1, base)
    whole[-2] = lambda: e("div", 1, e("mul", base, base))
    whole[0.5] = lambda: e("sqrt", base)
    whole[-0.5] = lambda: e("rsqrt", base)
    return whole[exponent]() if exponent in whole else e("pow", base, exponent)


def _clamp(e: Translator, x: Any, low: Any = None, high: Any = None, **names: Any) -> Ref:
    low, high = names.get("min", low), names.get("max", high)
    x = x if low is None else e("maximum", x, low)
    return x if high is None else e("minimum", x, high)


def _sigmoid(e: Translator, x: Any) -> Ref:
    return e("div", 1, e("add", 1, e("exp", e("neg", x))))


def _softplus(e: Translator, x: Any, beta: float = 1, threshold: float = 20) -> Ref:
    scaled = e("mul", x, beta)
    return e.where(e("gt", scaled, threshold), x, e("div", e("log1p", e("exp", scaled)), beta))


def _softplus_backward(e: Translator, grad: Any, x: Any, beta: float, threshold: float) -> Ref:
    scaled = e("mul", x, beta)
    return e.where(e("gt", scaled, threshold), grad, e("mul", grad, _sigmoid(e, scaled)))


def _sigmoid_backward(e: Translator, grad: Any, out: Any) -> Ref:
    return e("mul", e("mul", grad, e("sub", 1, out)), out)


def _tanh_backward(e: Translator, grad: Any, out: Any) -> Ref:
    return e("mul", grad, e("sub", 1, e("mul", out, out)))


def _threshold_backward(e: Translator, grad: Any, x: Any, threshold: float) -> Ref:
    return e.where(e("le", x, threshold), 0, grad)


def _leaky_relu(e: Translator, x: Any, slope: float = 0.01) -> Ref:
    return e.where(e("gt", x, 0), x, e("mul", x, slope))


def _leaky_relu_backward(e: Translator, grad: Any, x: Any, slope: float, is_result: bool) -> Ref:
    return e.where(e("gt", x, 0), grad, e("mul", grad, slope))


def _silu(e: Translator, x: Any) -> Ref:
    return e("div", x, e("add", 1, e("exp", e("neg", x))))


def _silu_backward(e: Translator, grad: Any, x: Any) -> Ref:
    sigmoid = _sigmoid(e, x)
    return e("mul", e("mul", grad, sigmoid), e("add", 1, e("mul", x, e("sub", 1, sigmoid))))


def _elu(e: Translator, x: Any, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Ref:
    below = e("mul", e("expm1", e("mul", x, input_scale)), alpha * scale)
    return e.where(e("le", x, 0), below, e("mul", x, scale))


def _elu_backward(
    e: Translator, grad: Any, alpha: float, scale: float, input_scale: float, is_result: bool, kept: Any
) -> Ref:
    if is_result:
        below = e("mul", e("mul", grad, input_scale), e("add", kept, alpha * scale))
    else:
        slope = e("mul", e("exp", e("mul", kept, input_scale)), alpha * scale * input_scale)
        below = e("mul", grad, slope)
    return e.where(e("le", kept, 0), below, e("mul", grad, scale))


def _hardtanh_backward(e: Translator, grad: Any, x: Any, low: float, high: float) -> Ref:
    return e.where(e.logic("or", e("le", x, low), e("ge", x, high)), 0, grad)


def _to_copy(e: Translator, x: Any, dtype: Optional[torch.dtype] = None, **_: Any) -> Ref:
    if dtype is torch.bool:
        return Ref(e.builder.condition(x.index))
    return x if dtype is None else Ref(e.builder.number(x.index))


def _copy(e: Translator, over: Any, value: Any, non_blocking: bool = False) -> Ref:
    return Ref(e.index(value))  # in the type of what it is written over, for which the trace's kind sees


def _of(op: str) -> Translation:
    return lambda e, *args: e(op, *args)


def _logic(op: str) -> Translation:
    return lambda e, *args: e.logic(op, *args)


def _xor(e: Translator, a: Any, b: Any) -> Ref:
    return e.logic("and", e.logic("or", a, b), e.logic("not", e.logic("and", a, b)))


TRANSLATIONS: Dict[str, Translation] = {
    **{name: _of(name) for name in ("neg", "abs", "sqrt", "floor", "ceil", "trunc", "sign", "exp", "expm1", "log")},
    **{name: _of(name) for name in ("log1p", "sin", "cos", "tanh", "atan", "erf", "minimum", "maximum")},
    **{name: _of(name) for name in ("eq", "ne", "lt", "le", "gt", "ge", "mul")},
    "add": _scaled("add"),
    "sub": _scaled("sub"),
    "rsub": _reversed_sub,
    "div": _div,
    "addcmul": _addcmul,
    "reciprocal": lambda e, x: e("div", 1, x),
    "rsqrt": _of("rsqrt"),
    "square": lambda e, x: e("mul", x, x),
    "pow": _pow,
    "round": _of("round"),
    "sgn": _of("sign"),
    "relu": lambda e, x: e("maximum", x, 0),
    "clamp": _clamp,
    "clamp_min": lambda e, x, low: e("maximum", x, low),
    "clamp_max": lambda e, x, high: e("minimum", x, high),
    "hardtanh": lambda e, x, low=-1.0, high=1.0: _clamp(e, x, low, high),
    "leaky_relu": _leaky_relu,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "exp2": lambda e, x: e("pow", 2, x),
    "where": lambda e, condition, a, b: e.where(condition, a, b),
    "masked_fill": lambda e, x, mask, value: e.where(mask, value, x),
    "logical_and": _logic("and"),
    "logical_or": _logic("or"),
    "logical_not": _logic("not"),
    "logical_xor": _xor,
    "bitwise_and": _logic("and"),
    "bitwise_or": _logic("or"),
    "bitwise_not": _logic("not"),
    "bitwise_xor": _xor,
    "heaviside": lambda e, x, at: e.where(e("eq", x, 0), at, e.where(e("gt", x, 0), 1, 0)),
    "_to_copy": _to_copy,
    "to": _to_copy,  # where torch makes a tensor of its lazy zeros
    "copy": _copy,
    "fill": _copy,
    "zero": lambda e, _: e("add", 0, 0),
    "clone": lambda e, x, **_: x,
    "lift_fresh_copy": lambda e, x: x,
    "silu": _silu,
    "silu_backward": _silu_backward,
    "elu": _elu,
    "elu_backward": _elu_backward,
    "celu": lambda e, x, alpha=1.0: _elu(e, x, alpha, 1, 1 / alpha),
    "sigmoid_backward": _sigmoid_backward,
    "tanh_backward": _tanh_backward,
    "threshold_backward": _threshold_backward,
    "softplus_backward": _softplus_backward,
    "leaky_relu_backward": _leaky_relu_backward,
    "hardtanh_backward": _hardtanh_backward,
    "zeros_like": lambda e, *_, **__: e("add", 0, 0),
    "ones_like": lambda e, *_, **__: e("add", 1, 0),
    "full_like": lambda e, x, value, **__: e("add", value, 0),
    "zeros": lambda e, *_, **__: e("add", 0, 0),
    "_efficientzerotensor": lambda e, *_, **__: e("add", 0, 0),
    "ones": lambda e, *_, **__: e("add", 1, 0),
    "new_zeros": lambda e, *_, **__: e("add", 0, 0),
    "new_ones": lambda e, *_, **__: e("add", 1, 0),
    "full": lambda e, size, value, **__: e("add", value, 0),
    "new_full": lambda e, x, size, value, **__: e("add", value, 0),
    "scalar_tensor": lambda e, value, **__: e("add", value, 0),
}
"""By name, without overload; one that ends in "_" writes its result over its first argument."""

ALIASES = frozenset({"detach", "alias", "lift_fresh", "expand", "view", "_unsafe_view", "reshape", "view_as"})
"""Operations that give a tensor another name; the shape is held by `trace`."""

QUESTIONS = frozenset({"is_same_size"})
"""What autograd asks of shapes, in torch 2.0 as an operation; nothing depends on the answer."""
