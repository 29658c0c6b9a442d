"""What a step asks of tensors beside torch's operations, seen at torch's Python interface while it is traced."""

from typing import Any, Callable, Dict, Iterator, List, NamedTuple, NoReturn, Sequence

from torch import Tensor
from torch.overrides import TorchFunctionMode

from snn_core.lower.refusal import READS
from snn_core.lower.shapes import Size, Sizes

__all__ = ["AskWatch", "Refusals"]

X_SHAPE, COEFFICIENT_SHAPE = "the shape of x", "the shape of a coefficient"


class Refusals(NamedTuple):
    """Each but the last raises the error at the user's line.

    shape: something depends on this shape.   operation: an operation by name, and why it cannot be if that is not known
    of the name.   write: an operation writes into what the step was given.   none: whether no line of a user asks.
    """

    shape: Callable[[str], NoReturn]
    operation: Callable[..., NoReturn]
    write: Callable[[str], NoReturn]
    none: Callable[[], bool]


class AskWatch(TorchFunctionMode):
    """Refuses what would freeze a value or a shape in the kernel. Who asks for a shape, rank or number of elements gets
    numbers that can only be handed on to torch. What torch itself asks is not seen.

    within_torch: whether a function of torch's Python interface is running.
    """

    def __init__(self, refusals: Refusals) -> None:
        super().__init__()
        self.refusals = refusals
        self.within_torch = False
        self._sizes = Sizes(lambda: refusals.shape(X_SHAPE))
        # kept with their tensors: one that is gone would hand its identity to another
        self._inputs: Dict[int, Tensor] = {}
        self._of_coefficients: Dict[int, Tensor] = {}

    def given(self, inputs: Sequence[Tensor], coefficients: Sequence[Tensor]) -> None:
        """Tell which tensors the step was given, and which of these are coefficients."""
        self._inputs = {id(tensor): tensor for tensor in inputs}
        self._of_coefficients = {id(tensor): tensor for tensor in coefficients}

    def of_coefficient(self, tensor: Tensor) -> bool:
        """Whether it comes from coefficients alone, and so has the shape of one, which is not the one traced."""
        return id(tensor) in self._of_coefficients

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.within_torch or self.refusals.none():
            return func(*args, **kwargs)
        self._check(func, args, kwargs)
        self.within_torch = True
        try:
            result = func(*args, **kwargs)
            self.follow((args, kwargs), result)
        finally:
            self.within_torch = False
        return self._answer(func, (*args, *kwargs.values()), result)

    def follow(self, given: Any, result: Any) -> None:
        """Note whether what came of these arguments has the shape of a coefficient."""
        taken = list(_leaves(given))
        tensors = [leaf for leaf in taken if isinstance(leaf, Tensor) and leaf.numel() > 1]
        shaped = any(isinstance(leaf, Size) for leaf in taken) or not all(map(self.of_coefficient, tensors))
        if tensors and not shaped:
            made = [leaf for leaf in _leaves(result) if isinstance(leaf, Tensor)]
            self._of_coefficients.update((id(tensor), tensor) for tensor in made)

    def _check(self, func: Any, args: Any, kwargs: Any) -> None:
        name = getattr(func, "__name__", "")
        if kwargs.get("out") is not None:
            self.refusals.operation(
                f"torch.{name}", "writes its result into out=; write `o = m * 0.5` for `torch.mul(m, 0.5, out=o)`"
            )
        if getattr(func, "__self__", None) is Tensor.data:
            self.refusals.operation("Tensor.data", "goes past autograd; read .detach(), and write into the tensor")
        if name in READS:
            self.refusals.operation(f"Tensor.{name}")
        if not args or not isinstance(args[0], Tensor):
            return
        if name in ("__getitem__", "__setitem__") and _is_part(args[1]):
            # torch makes a whole of a slice that reaches beyond the sizes of the trace
            self.refusals.operation(f"Tensor.{name}")
        writes = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
        if (writes or name == "__setitem__") and {id(args[0]), id(args[0]._base)} & self._inputs.keys():
            self.refusals.write(f"Tensor.{name}")

    def _answer(self, func: Any, args: Any, result: Any) -> Any:
        """The result, numbers for sizes."""
        tensors = [arg for arg in args if isinstance(arg, Tensor) and arg.ndim > 0]
        if not tensors or not isinstance(result, (int, tuple)):
            return result
        name = getattr(func, "__name__", "")
        if isinstance(result, bool):
            if name == "is_same_size" and any(map(self.of_coefficient, tensors)):
                self.refusals.shape(COEFFICIENT_SHAPE)
            return result
        answer = self._sizes.answer(result)
        if answer is not result and self.of_coefficient(tensors[0]):
            self.refusals.shape(COEFFICIENT_SHAPE)
        if name == "__len__":  # Python makes a plain number of it
            self.refusals.shape(X_SHAPE)
        return answer


def _leaves(value: Any) -> Iterator[Any]:
    """What stands in lists, tuples and dictionaries, and in such in these."""
    waiting: List[Any] = [value]
    while waiting:
        top = waiting.pop()
        if isinstance(top, (list, tuple)):
            waiting.extend(tuple.__iter__(top) if isinstance(top, tuple) else top)
        elif isinstance(top, dict):
            waiting.extend(top.values())
        else:
            yield top


def _is_part(index: Any) -> bool:
    """Whether an index has a slice with bounds."""
    return any(isinstance(leaf, slice) and leaf != slice(None) for leaf in _leaves(index))
