"""The run folder: made once, never overwritten, held by one process at a time."""

import contextlib
import errno
import json
import os
import shutil
import time
from pathlib import Path
from typing import IO, Any, Callable, Iterator, Mapping, Optional, Union

from snn_core.errors import RunFolderError

__all__ = ["RunFolder", "writing"]

PathLike = Union[str, "os.PathLike[str]"]
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)


@contextlib.contextmanager
def writing(path: PathLike) -> Iterator[None]:
    """Turn what the file system refuses inside the block into a RunFolderError that says what to do."""
    try:
        yield
    except RunFolderError:
        raise
    except OSError as exc:
        remedy = "make it writable, or choose another folder"
        if exc.errno in _FULL:
            remedy = "free some space, or choose a folder on another disk"
        elif exc.errno in (errno.EEXIST, errno.ENOTDIR):
            remedy = "a file stands where a folder should: move it, or choose another folder"
        raise RunFolderError(f"cannot write {os.fspath(path)}: {exc.strerror or exc}; {remedy} (folder=...)") from exc


class RunFolder:
    """One run's files. Layout: settings.json, metrics.jsonl, summary.json, checkpoints/, plots/, lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: Optional[IO[str]] = None
        with writing(path):
            self._take()
            for name in ("checkpoints", "plots"):
                (path / name).mkdir(exist_ok=True)

    @classmethod
    def create(cls, parent: PathLike, name: Optional[str] = None) -> "RunFolder":
        """Make a folder for a new run. Raises RunFolderError where it cannot be made, or `name` is taken."""
        parent = Path(parent)
        with writing(parent):
            parent.mkdir(parents=True, exist_ok=True)
        if name is not None:
            try:
                with writing(parent / name):
                    (parent / name).mkdir()
            except RunFolderError as exc:
                if not isinstance(exc.__cause__, FileExistsError):
                    raise
                raise RunFolderError(
                    f"the run folder {parent / name} exists; runs are never overwritten: choose another name, or go "
                    f"on with that run: fit(..., resume={str(parent / name)!r})"
                ) from exc
            return cls(parent / name)
        return cls(_fresh(parent))

    @classmethod
    def open(cls, path: PathLike) -> "RunFolder":
        """Open an earlier run's folder. Raises RunFolderError where there is none, or another process writes to it."""
        path = Path(path)
        if not (path / "checkpoints").is_dir():
            what = "is no run folder (it has no checkpoints/)" if path.is_dir() else "does not exist"
            raise RunFolderError(f"the run folder {path} {what}; give the folder that an earlier run printed")
        return cls(path)

    def _take(self) -> None:
        # a lock of the operating system: it goes with the process, however that ends
        self._lock = open(self.path / "lock", "w", encoding="utf-8")  # noqa: SIM115
        try:
            _lock(self._lock)
        except OSError as exc:
            self.close()
            raise RunFolderError(
                f"the run folder {self.path} is in use by another process; wait until that run ends, or stop it"
            ) from exc

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write one JSON document, replacing the file in one step. Raises RunFolderError."""
        path = self.path / name
        with writing(path):
            _replace(path, json.dumps(content, indent=2) + "\n")

    def append_line(self, name: str, content: Mapping[str, Any]) -> None:
        """Append one JSON value as a line. Raises RunFolderError."""
        path = self.path / name
        with writing(path), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")

    def keep_lines(self, name: str, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop the lines of a file that are not `wanted`, and one that a killed process left half-written."""
        path = self.path / name
        if path.exists():
            with writing(path):
                kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _is_wanted(line, wanted)]
                _replace(path, "".join(line + "\n" for line in kept))

    def discard(self) -> None:
        """Remove the folder if no checkpoint was saved in it, so that a run that never began leaves none."""
        if not any((self.path / "checkpoints").iterdir()):
            self.close()
            shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> None:
        """Let another process have the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _fresh(parent: Path) -> Path:
    stem = time.strftime("%Y%m%d-%H%M%S")
    taken = 1
    while True:
        path = parent / (stem if taken == 1 else f"{stem}-{taken}")
        try:
            with writing(path):
                path.mkdir()
        except RunFolderError as exc:
            if not isinstance(exc.__cause__, FileExistsError):
                raise
            taken += 1
        else:
            return path


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _is_wanted(line: str, wanted: Callable[[Mapping[str, Any]], bool]) -> bool:
    try:
        value = json.loads(line)
    except ValueError:
        return False
    return isinstance(value, dict) and wanted(value)


def _lock(file: IO[str]) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no such lock; there two runs in one folder are not noticed
        return
    try:
        # lockf, not flock: a lock of this process alone, which forked data workers that outlive it do not hold
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EACCES, errno.EAGAIN):
            raise  # another process has it; any other error is of a file system without locks
