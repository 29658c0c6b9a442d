"""The tensor that forward sees while a model is traced, and the recorder of what forward does with it.

A traced tensor carries the trace's values only so that shapes and types follow from running the operation; it gives
none of them away. Recording happens below autograd: the backward of a `torch.autograd.Function` is never seen, and a
gradient is that of the operations that were recorded. Neither is `torch.no_grad`; `detach` is an operation like all.
"""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ._errors import compiler_error

DEVICE = torch.device("ipu", 0)
aten = torch.ops.aten
FUNCTIONAL = torch.nn.functional
# A call of one of these is a loss, wherever its result goes.
LOSSES = {
    getattr(FUNCTIONAL, name)
    for name in (
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
        "cosine_embedding_loss",
        "cross_entropy",
        "ctc_loss",
        "hinge_embedding_loss",
        "huber_loss",
        "kl_div",
        "l1_loss",
        "margin_ranking_loss",
        "mse_loss",
        "multi_margin_loss",
        "multilabel_margin_loss",
        "multilabel_soft_margin_loss",
        "nll_loss",
        "poisson_nll_loss",
        "smooth_l1_loss",
        "soft_margin_loss",
        "triplet_margin_loss",
    )
}
OF_ONE_TYPE = (
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.mv.default,
    aten.addmv.default,
    aten.dot.default,
    aten.convolution.default,
    aten.native_layer_norm.default,
    aten.native_group_norm.default,
)
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
CLASS_WEIGHTED = (FUNCTIONAL.cross_entropy, FUNCTIONAL.nll_loss)
DEVICE_TYPES = {torch.float64: torch.float32}
FLOATS = (torch.float16, torch.float32)
TYPES = (*FLOATS, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool)

_recorders = []


def recorder():
    """Return the recorder of the trace that is going on, or None."""
    return _recorders[-1] if _recorders else None


class Ref:
    """The place of a value in a graph."""

    __slots__ = ("index",)

    def __init__(self, index):
        self.index = index


class Node:
    """One recorded operation: what it is, its arguments with Refs for tensors, and the places of its results."""

    def __init__(self, function, args, kwargs, results, types, half):
        self.function = function
        self.flat, self.spec = tree_flatten((args, kwargs))
        # for most nodes arguments are few and not nested: then putting them together takes no tree
        self.plain = None if kwargs or any(isinstance(arg, (list, tuple, dict)) for arg in args) else list(args)
        self.half = half
        self.results = results
        self.types = types
        self.reads = [entry.index for entry in self.flat if isinstance(entry, Ref)]
        self.is_loss = False

    def run(self, values):
        """Run the operation and return its results in a list. values: by place."""
        if self.plain is not None:
            args = [values[arg.index] if type(arg) is Ref else arg for arg in self.plain]
            kwargs = {}
        else:
            flat = [values[arg.index] if type(arg) is Ref else arg for arg in self.flat]
            args, kwargs = tree_unflatten(flat, self.spec)
        out = compute(self.function, args, kwargs, self.types) if self.half else self.function(*args, **kwargs)
        return out if isinstance(out, (list, tuple)) else [out]

    def flat_text(self):
        """Return the arguments as text."""
        return [f"%{entry.index}" if isinstance(entry, Ref) else str(entry) for entry in self.flat]


class IpuTensor(torch.Tensor):
    """A tensor on the pretended device."""

    @staticmethod
    def __new__(cls, value, index, requires_grad=False):
        self = torch.Tensor._make_wrapper_subclass(
            cls, value.shape, strides=value.stride(), dtype=value.dtype, device="meta", requires_grad=requires_grad
        )
        self._value = value
        self._index = index
        return self

    def __repr__(self, *, tensor_contents=None):
        if recorder() is not None:
            # torch reads the values of an IPU's tensor by way of the CPU
            self.cpu()
        return f"tensor(..., size={tuple(self.shape)}, dtype={self.dtype}, device='ipu:0')"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func == torch.Tensor.device.__get__:
            # inside, the tensor is on `meta`: autograd refuses a device that torch was not built for
            return DEVICE
        if func == torch.Tensor.data.__get__:
            # `.data` is not to be relied on: here it does not cut the gradient
            return aten.alias(args[0])
        if func is torch._C._nn.one_hot:
            return one_hot(*args, **kwargs)
        if func is torch.Tensor.new_tensor:
            # torch's own takes the memory for a tensor of this class
            return torch.tensor(args[1], **{"dtype": args[0].dtype, **kwargs})
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            args = (args[0], listed(args[1]), *args[2:])
        if func in CLASS_WEIGHTED and kwargs.get("weight", args[2] if len(args) > 2 else None) is not None:
            raise compiler_error(f"{func.__name__}: a weight for each class is not supported")
        result = super().__torch_function__(func, types, args, kwargs)
        if func in LOSSES and isinstance(result, IpuTensor) and recorder() is not None:
            return recorder().loss(result)
        return result

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        current = recorder()
        if current is None:
            raise compiler_error("A tensor of a trace was used after the trace had ended")
        return current.call(func, args, kwargs or {})


class Recorder(TorchDispatchMode):
    """Records every operation on traced tensors, and those that make tensors."""

    def __init__(self, training):
        super().__init__()
        self.training = training
        self.nodes = []
        self.constants = {}
        self.count = 0
        # storages that an operation said it writes to
        self.written = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.call(func, args, kwargs or {})

    @contextlib.contextmanager
    def tracing(self):
        """Record what happens inside."""
        _recorders.append(self)
        try:
            with self:
                yield self
        finally:
            _recorders.remove(self)

    def place(self):
        """Return a new place."""
        self.count += 1
        return self.count - 1

    def leaf(self, value, requires_grad=False):
        """Return the traced tensor of a parameter, a buffer or an input."""
        return IpuTensor(value, self.place(), requires_grad)

    def loss(self, x):
        """Mark a tensor as a loss."""
        result = aten.alias(x)
        self.nodes[-1].is_loss = True
        return result

    def call(self, func, args, kwargs):
        """Record one operation and return its traced result."""
        check(func, args, kwargs)
        if func is aten.lift_fresh.default:
            return args[0]
        if of_host(args) or (not tensors_in(args) and not on_device(kwargs.get("device"))):
            result = func(*args, **{key: host(value) for key, value in kwargs.items()})
            return self.constant(result) if on_device(kwargs.get("device")) else result
        kwargs = {key: host(value) for key, value in kwargs.items()}
        args = tree_map(host, args)
        for argument, arg in zip(func._schema.arguments, args):
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(arg, IpuTensor):
                self.written.add(storage(arg._value))
        with torch.no_grad():
            values = compute(func, *tree_map(self.value, (args, kwargs)))
        flat, spec = tree_flatten(values)
        flat = [demoted(value) for value in flat]
        results = [self.result(value, args) for value in flat]
        refs = tree_map(self.ref, (args, kwargs))
        places = [result._index if isinstance(result, IpuTensor) else None for result in results]
        half = any(isinstance(arg, IpuTensor) and arg.dtype == torch.float16 for arg in tree_flatten((args, kwargs))[0])
        self.nodes.append(Node(func, *refs, places, [getattr(value, "dtype", None) for value in flat], half))
        return tree_unflatten(results, spec)

    def constant(self, value):
        """Freeze a tensor that forward made out of Python values."""
        result = self.leaf(demoted(value.detach().clone()))
        self.constants[result._index] = result._value
        return result

    def result(self, value, args):
        """Return the traced tensor of a result: the argument itself when the operation changed it in place."""
        if not isinstance(value, torch.Tensor):
            return value
        for arg in tree_flatten(args)[0]:
            if isinstance(arg, IpuTensor) and arg._value is value:
                if arg.shape != value.shape:
                    raise compiler_error("An in-place operation that changes a shape is not supported")
                return arg
        return self.leaf(value)

    def value(self, arg):
        """Return what a traced tensor stands for."""
        return arg._value if isinstance(arg, IpuTensor) else arg

    def ref(self, arg):
        """Return the place of a tensor argument."""
        if isinstance(arg, IpuTensor):
            return Ref(arg._index)
        if not isinstance(arg, torch.Tensor):
            return arg
        if arg.dim():
            shape = list(arg.shape)
            raise compiler_error(
                f"Expected an IPU tensor but got tensor(device=cpu, shape={shape}, dtype={arg.dtype}). Constant "
                "tensors should be moved explicitly to the IPU, via cpu_tensor.to(ipu_tensor.device)."
            )
        index = self.place()
        self.constants[index] = demoted(arg.detach().clone())
        return Ref(index)


def storage(tensor):
    """Return what tells whether two tensors share their memory."""
    return tensor.untyped_storage().data_ptr()


def of_host(args):
    """Say whether an operation has the host's tensors alone; numbers with no dimension are the graph's constants."""
    tensors = tensors_in(args)
    return any(arg.dim() for arg in tensors) and not any(isinstance(arg, IpuTensor) for arg in tensors)


def tensors_in(args):
    """Return the tensors among the arguments of an operation."""
    return [arg for arg in tree_flatten(args)[0] if isinstance(arg, torch.Tensor)]


def on_device(device):
    """Say whether this is the pretended device, by the name that Python sees or by the one inside."""
    return device is not None and torch.device(device).type in (DEVICE.type, "meta")


def listed(index):
    """Return an index with tensors for its lists: torch's own are on `meta`, where their numbers are lost."""
    if isinstance(index, tuple):
        return tuple(listed(part) for part in index)
    numbers = isinstance(index, list) and all(isinstance(part, (bool, int)) for part in index)
    return torch.tensor(index) if numbers else index


def one_hot(x, num_classes=-1):
    """Compute torch's one_hot: torch's own asks for the values that a traced tensor does not have."""
    if num_classes < 0:
        raise compiler_error("one_hot: num_classes must be given, since it cannot be read from the values")
    return x.unsqueeze(-1).eq(torch.arange(num_classes)).to(torch.int64)


def check(func, args, kwargs):
    """Refuse what the device cannot do."""
    if func is aten._local_scalar_dense.default:
        raise compiler_error(
            "aten::_local_scalar_dense (.item(), bool(tensor), int(tensor), float(tensor)) needs a value while the "
            "graph is traced: value-dependent control flow is not supported"
        )
    device = kwargs.get("device")
    moved = any(isinstance(arg, IpuTensor) for arg in tree_flatten(args)[0])
    if device is not None and torch.device(device).type == "cpu" and moved:
        raise compiler_error(
            'Illegal move to CPU (via `.to("cpu")`) when using the dispatcher. '
            "Instead, return this output as an IPU tensor."
        )
    if func in (aten.nonzero.default, aten.masked_select.default, aten.unique_dim.default, aten._unique2.default):
        raise compiler_error(f"{func}: the shape of the result depends on values")
    if func in OF_ONE_TYPE:
        kinds = {arg.dtype for arg in args if isinstance(arg, torch.Tensor) and arg.is_floating_point()}
        if len({DEVICE_TYPES.get(kind, kind) for kind in kinds}) > 1:
            raise compiler_error(f"{func}: expected operands of one type but got {sorted(map(str, kinds))}")
    if func in INDEXED:
        masks = [index for index in args[1] if index is not None and index.dtype == torch.bool]
        # a mask alone, x[mask] = value, is a choice between two tensors
        if masks and (func is aten.index.Tensor or len(args[1]) > 1):
            raise compiler_error(f"{func}: Indexing using boolean or byte tensor masks is unsupported")
    if func in (aten.resize_.default, aten.set_.source_Tensor, aten.t_.default, aten.transpose_.default):
        raise compiler_error(f"{func} is not supported")


def host(value):
    """Return an argument as the host needs it that computes in the device's place."""
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return DEVICE_TYPES.get(value, value) if isinstance(value, torch.dtype) else value


def demoted(value):
    """Return a value in a type that the device has."""
    if isinstance(value, torch.Tensor) and value.dtype in DEVICE_TYPES:
        return value.to(DEVICE_TYPES[value.dtype])
    return value


def compute(func, args, kwargs, types=None):
    """Run an operation; one on half precision is computed in float32 and rounded, as torch on a CPU lacks some.

    types: of the results, where they are known.
    """
    flat, spec = tree_flatten((args, kwargs))
    halves = [isinstance(arg, torch.Tensor) and arg.dtype == torch.float16 for arg in flat]
    schema = func._schema
    if not any(halves) or any(argument.alias_info is not None for argument in schema.arguments):
        return func(*args, **kwargs)
    if types is None:
        meta = [arg.to("meta") if isinstance(arg, torch.Tensor) else arg for arg in flat]
        meta = [torch.device("meta") if isinstance(arg, torch.device) else arg for arg in meta]
        meta_args, meta_kwargs = tree_unflatten(meta, spec)
        types = [getattr(value, "dtype", None) for value in tree_flatten(func(*meta_args, **meta_kwargs))[0]]
    wide = [arg.float() if half else arg for arg, half in zip(flat, halves)]
    wide_args, wide_kwargs = tree_unflatten(wide, spec)
    if wide_kwargs.get("dtype") == torch.float16:
        wide_kwargs = {**wide_kwargs, "dtype": torch.float32}
    values, out = tree_flatten(func(*wide_args, **wide_kwargs))
    narrow = [
        value.to(dtype) if isinstance(value, torch.Tensor) and value.dtype != dtype else value
        for value, dtype in zip(values, types)
    ]
    return tree_unflatten(narrow, out)
