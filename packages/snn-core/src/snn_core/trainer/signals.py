"""Ctrl-C and SIGTERM while training: remembered, so that a step is finished and saved before the program ends."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Dict, Optional, Type

__all__ = ["Interrupted", "Interrupts"]

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_NOTICE = b"\ninterrupted: finishing this step and saving; a second Ctrl-C aborts at once\n"


_SAME_S = 2.0
"""Signals to one of several processes within so many seconds are one: the terminal sends it, and the launcher too."""


class Interrupted(Exception):
    """Leaves the training loop between two steps, where the state is whole; users see TrainingInterrupted. Its text
    names the signal.
    """


class Interrupts:
    """In the main thread, the first SIGINT or SIGTERM inside the block sets `requested`, the second aborts.

    The handlers that were there before come back on leaving. Elsewhere than in the main thread it does nothing.
    processes: how many train together.
    """

    def __init__(self, processes: int = 1) -> None:
        self.requested: Optional[str] = None
        self._same_s = 0.0 if processes == 1 else _SAME_S
        self._requested_s = 0.0
        self._before: Dict[int, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in _NAMES:
                before = signal.getsignal(number)
                # ignored on purpose (nohup), or set from outside of Python: not ours to replace
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()

    def check(self) -> None:
        """Raise Interrupted if a signal arrived."""
        if self.requested is not None:
            raise Interrupted(self.requested)

    def _receive(self, number: int, frame: Optional[FrameType]) -> None:
        if os.getpid() != self._process:
            self._receive_in_child(number)
            return
        if self.requested is not None:
            if time.monotonic() - self._requested_s < self._same_s:
                return
            raise KeyboardInterrupt
        self.requested, self._requested_s = _NAMES[signal.Signals(number)], time.monotonic()
        os.write(2, _NOTICE)  # not print: its lock may be held by what was interrupted

    def _receive_in_child(self, number: int) -> None:
        # A forked worker of the data loader inherits the handlers; a terminal sends Ctrl-C to it too: its parent acts.
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
