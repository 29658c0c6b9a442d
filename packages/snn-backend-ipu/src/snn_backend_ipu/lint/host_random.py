"""Random numbers that Python or numpy draws while a model runs, and the lines that ask for them."""

import contextlib
import os
import random
import sys
from types import FrameType
from typing import Any, Callable, Iterator, List, Optional

import numpy as np

from snn_backend_ipu.lint.watch import SKIPPED
from snn_core.lower.refusal import Place

__all__ = ["drawing_lines", "restored"]

_NOT_THE_USERS = (*SKIPPED, random.__file__, os.path.dirname(np.__file__) + os.sep)


@contextlib.contextmanager
def restored() -> Iterator[Callable[[], bool]]:
    """Give both global streams back as they were; the value says, when called, whether something was drawn."""
    before, python, numpy = _position(), random.getstate(), np.random.get_state()
    try:
        yield lambda: _position() != before
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def drawing_lines(run: Callable[[], object]) -> List[Optional[Place]]:
    """The user's lines that draw from the global streams while `run` runs; [None] where they cannot be told."""
    search = _Search()
    before = sys.gettrace()
    sys.settrace(search.called)
    try:
        run()
    finally:
        sys.settrace(before)
    return list(search.found) or [None]


class _Search:
    """Looks at the streams from line to line of the user's code: no mode of torch sees who draws from them."""

    def __init__(self) -> None:
        self.found: List[Optional[Place]] = []
        self._lines: List[Optional[Place]] = [None]
        self._before = _position()

    def called(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename.startswith(_NOT_THE_USERS):
            return None
        self._look()
        self._lines.append(None)
        return self._inside

    def _inside(self, frame: FrameType, event: str, argument: Any) -> Any:
        self._look()
        if event == "line":
            self._lines[-1] = Place(frame.f_code.co_filename, frame.f_lineno)
        elif event == "return":
            self._lines.pop()
        return self._inside

    def _look(self) -> None:
        now = _position()
        if now != self._before:
            self.found.append(self._lines[-1])
            self._before = now


def _position() -> Any:
    # where each stream stands, and a word that changes when its numbers are made anew
    python = random.getstate()[1]
    _, words, position, *_ = np.random.get_state()
    return python[-1], python[0], position, int(words[0])
