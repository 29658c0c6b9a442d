"""Ask every backend whether its device can be used, each in a process of its own: a crash or a hang stays there."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import IO, Any, Dict, Iterable, Iterator, List, Optional

from snn_core import registry
from snn_core._entry_points import describe
from snn_core.errors import ConfigError
from snn_core.registry import BackendInfo

__all__ = ["ProbeResult", "probe_all"]

_KEPT_BYTES = 1 << 16
_MOST_S = 3600.0
_GRACE_S = 5.0  # a probe ends itself this long after its deadline, should this process be gone by then
_STATUSES = ("ready", "unavailable", "incompatible", "broken", "conflict")


@dataclass(frozen=True)
class ProbeResult:
    """One backend's answer. `status` is "ready", "unavailable", "incompatible", "broken" or "conflict".

    `api` and `priority` are None where the backend did not get as far as saying them; `detail` says what was found,
    `remedy` what to do about it, `seconds` how long the answer took.
    """

    info: BackendInfo
    status: str
    api: Optional[int] = None
    priority: Optional[int] = None
    detail: str = ""
    remedy: str = ""
    seconds: float = 0.0


def probe_all(infos: Optional[Iterable[BackendInfo]] = None, timeout_s: float = 10.0) -> Iterator[ProbeResult]:
    """Yield a result for each backend (default: all that are installed) as it comes, `timeout_s` seconds at most each.

    All processes run at once. Leaving the iterator early ends those that still run. Raises ConfigError for a time that
    is not above 0 and at most 3600 s.
    """
    if not 0.0 < timeout_s <= _MOST_S:
        raise ConfigError(f"the time for each probe is {timeout_s!r} s; it must be above 0 and at most {_MOST_S:g}")
    wanted = list(registry.available().values() if infos is None else infos)
    results: queue.Queue[ProbeResult] = queue.Queue()
    children: List[_Child] = []
    try:
        for info in wanted:
            if info.rivals:
                _, fault = registry.examine(info)  # told by metadata alone: nothing is imported
                assert fault is not None
                results.put(ProbeResult(info, fault.status, detail=fault.detail, remedy=fault.remedy))
                continue
            try:
                child = _Child(info, timeout_s)
            except OSError as exc:
                remedy = "free some memory or processes and try again"
                results.put(ProbeResult(info, "broken", detail=f"no probe could start: {describe(exc)}", remedy=remedy))
                continue
            children.append(child)
            threading.Thread(target=lambda child=child: results.put(child.result()), daemon=True).start()
        for _ in wanted:
            yield results.get()
    finally:
        for child in children:
            child.kill()


class _Child:
    """One probe's process. Its stdout carries the answer alone (see _probe), its stderr whatever the plugin prints."""

    def __init__(self, info: BackendInfo, timeout_s: float) -> None:
        # Not `-m snn_core._probe`, which would put the current folder in front of sys.path, where a user's own file may
        # bear the name of a module of the standard library. The probe must see what this process sees, no more.
        code = (
            f"import sys; sys.path[:] = {[str(folder) for folder in sys.path]!r}; "
            f"from snn_core._probe import main; main({info.name!r}, limit_s={timeout_s + _GRACE_S!r})"
        )
        self.info = info
        self.timeout_s = timeout_s
        self.ended = False
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a process group of its own, so that what the plugin starts can be ended with it
        )
        self.answer = _Collector(self.process.stdout)
        self.stderr = _Collector(self.process.stderr)

    def result(self) -> ProbeResult:
        """Wait for the end or the deadline, then say what happened."""
        try:
            code: Optional[int] = self.process.wait(self.timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        seconds = time.monotonic() - self.started
        self.kill()
        fields = _answer(self.answer.text()) or self._failure(code)
        return ProbeResult(self.info, seconds=seconds, **fields)

    def _failure(self, code: Optional[int]) -> Dict[str, Any]:
        name, package = self.info.name, self.info.package
        if code is None:
            detail = f"no answer in {self.timeout_s:g} s"
            remedy = f"wait longer: snn backends --timeout {min(6 * self.timeout_s, _MOST_S):g}; "
        else:
            detail = f"its process {_ending(code)} without an answer"
            remedy = f"see where: {_python()} -X faulthandler -m snn_core._probe {name}; "
        last = [line.strip() for line in self.stderr.text().splitlines() if line.strip()][-2:]
        detail += f"; it last said: {' | '.join(last)}" if last else ""
        remedy += f"then update it: pip install --upgrade {package}; or remove it: pip uninstall {package}"
        return {"status": "broken", "detail": detail, "remedy": remedy}

    def kill(self) -> None:
        """End the process and all that it started. Calling it again does nothing."""
        if self.ended:  # its number may be another process's by now
            return
        self.ended = True
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)


class _Collector:
    """Reads a pipe in a thread and keeps its end: a plugin that prints on and on neither blocks nor fills memory."""

    def __init__(self, pipe: Optional[IO[bytes]]) -> None:
        assert pipe is not None
        self._pipe = pipe
        self._kept = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._pipe:
            while True:
                chunk = os.read(self._pipe.fileno(), _KEPT_BYTES)
                if not chunk:
                    return
                self._kept = (self._kept + chunk)[-_KEPT_BYTES:]

    def text(self) -> str:
        # A daemon that the plugin left behind may hold the pipe open for ever; what has arrived by now is all.
        self._thread.join(0.5)
        return self._kept.decode("utf-8", "replace")


def _answer(text: str) -> Optional[Dict[str, Any]]:
    """The fields of a whole answer, or None: a process that died while it wrote has not answered."""
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    if not isinstance(fields, dict) or fields.get("status") not in _STATUSES:
        return None
    return {key: fields.get(key) for key in ("status", "api", "priority", "detail", "remedy")}


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _python() -> str:
    return os.path.basename(sys.executable) or "python"
