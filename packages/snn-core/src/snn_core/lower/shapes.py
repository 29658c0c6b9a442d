"""Sizes and shapes that a step may hand on to torch while it is traced, and not decide by."""

from typing import Any, Callable, Dict, NoReturn

import torch

__all__ = ["Shape", "Size", "Sizes"]

Refuse = Callable[[], NoReturn]


class Size(int):
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
    setattr(Size, f"__{_name}__", Size._refused)


class Shape(tuple):
    """Sizes in the place of a `torch.Size`. It may be taken apart and handed on; it equals nothing but itself.

    `len` stays, which torch's parser and unpacking ask for too: a step is traced at every rank that a layer has.
    """

    refuse: Refuse

    def __eq__(self, other: object) -> bool:
        # tuples of two lengths differ without asking an element
        if not isinstance(other, tuple) or tuple.__len__(self) != tuple.__len__(other):
            self.refuse()
        return tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __getitem__(self, index: Any) -> Any:
        found = tuple.__getitem__(self, index)
        return _shape(found, self.refuse) if isinstance(found, tuple) else found

    def _refused(self, *_: object, **__: object) -> Any:
        self.refuse()

    # numpy would make plain numbers of the sizes
    __hash__ = __bool__ = __array__ = numel = _refused
    __lt__ = __le__ = __gt__ = __ge__ = __mul__ = __rmul__ = _refused


def _shape(sizes: Any, refuse: Refuse) -> Shape:
    made = Shape(sizes)
    made.refuse = refuse
    return made


class Sizes:
    """Makes them. refuse: raises the error for whoever computes or decides with one."""

    def __init__(self, refuse: Refuse) -> None:
        self._refuse = refuse
        self._known: Dict[int, Size] = {}

    def answer(self, result: Any) -> Any:
        """What a tensor told of its shape, as the step may have it; anything else as it is."""
        if isinstance(result, (torch.Size, tuple)) and all(type(size) is int for size in result):
            return _shape(map(self._size, result), self._refuse)
        return self._size(result) if type(result) is int else result

    def _size(self, number: int) -> Size:
        """One object for one number, so that the shapes of x and a state, equal for every x, compare equal."""
        if number not in self._known:
            self._known[number] = Size(number)
            self._known[number].refuse = self._refuse
        return self._known[number]
