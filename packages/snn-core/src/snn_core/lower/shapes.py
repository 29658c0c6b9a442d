"""What a step asks about shapes while it is traced: it may hand sizes on to torch, and not decide by them."""

from typing import Any, Callable, Dict, NoReturn

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["ShapeWatch"]

Refuse = Callable[[], NoReturn]


class _Size(int):
    """A size or a rank. Torch takes it as the number that it is; Python that would compute with it is refused."""

    refuse: Refuse

    def __eq__(self, other: object) -> bool:
        return self is other or self._refused()

    def __ne__(self, other: object) -> bool:
        return self is not other and self._refused()

    def _refused(self, *_: object) -> Any:
        self.refuse()


_ASKED = "hash bool int float neg pos abs invert round trunc floor ceil lt le gt ge"
_COMPUTED = "add sub mul floordiv truediv mod divmod pow lshift rshift and or xor"
for _name in f"{_ASKED} {_COMPUTED} r{_COMPUTED.replace(' ', ' r')}".split():
    setattr(_Size, f"__{_name}__", _Size._refused)


class _Shape(tuple):
    """Sizes in the place of a `torch.Size`."""

    def numel(self) -> int:
        return self[0]._refused()


class ShapeWatch(TorchFunctionMode):
    """Gives who asks for a tensor's shape, rank or number of elements numbers that can only be handed on to torch.

    refuse: raises the error for whoever computes or decides with one. What torch itself asks is not seen.
    within_torch: whether a function of torch's Python interface is running.
    """

    def __init__(self, refuse: Refuse) -> None:
        super().__init__()
        self._refuse = refuse
        self.within_torch = False
        self._known: Dict[int, _Size] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before, self.within_torch = self.within_torch, True
        try:
            result = func(*args, **(kwargs or {}))
        finally:
            self.within_torch = before
        if not isinstance(result, (int, torch.Size)) or isinstance(result, bool):
            return result
        if not args or not isinstance(args[0], Tensor) or args[0].ndim == 0:
            return result
        if func is Tensor.__len__:  # Python makes a plain number of it
            self._refuse()
        return self._size(result) if isinstance(result, int) else _Shape(map(self._size, result))

    def _size(self, number: int) -> _Size:
        """One object for one number, so that the shapes of x and a state, equal for every x, compare equal."""
        if number not in self._known:
            self._known[number] = _Size(number)
            self._known[number].refuse = self._refuse
        return self._known[number]
