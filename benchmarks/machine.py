"""What a measurement must be read with: the machine, the versions and how busy it was."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Dict, Optional

__all__ = ["commit", "facts", "load"]

ROOT = Path(__file__).resolve().parents[1]


def facts() -> Dict[str, Any]:
    """Processor, cores that this process may use, memory, system."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _line("/proc/cpuinfo", "model name") or platform.processor(),
        "machine": platform.machine(),
        "cores": usable,
        "memory": _line("/proc/meminfo", "MemTotal"),
        "system": platform.platform(),
    }


def _line(path: str, name: str) -> Optional[str]:
    """The first value of that name in a file of `name : value` lines, where there is such a file."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), None)


def load() -> Optional[float]:
    """How many processes ran or waited, on average over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def commit() -> Optional[str]:
    """The commit that was measured, with "+" where files differ from it; None outside a git repository."""
    try:
        name, status = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return name + ("+" if status else "")
