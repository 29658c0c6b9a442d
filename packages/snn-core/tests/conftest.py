"""What several test modules share: real packages, made for one test, which importlib.metadata sees as installed."""

import os
import shutil
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Set

import pytest

BACKEND = """
import os, sys, time
from dataclasses import dataclass
from snn_core.backend import Backend, Capabilities, Health
{top}

@dataclass(frozen=True)
class Options:
    threads: int = 1

class Device(Backend):
    name = {name!r}
    api = {api!r}
    Options = Options
    capabilities = Capabilities()
    priority = {priority!r}

    def probe(self):
        {probe}

    def compile(self, step, optimizer, batch, train):
        raise NotImplementedError
"""


class Packages:
    """A folder that acts as site-packages for a test: what is put there is installed for the processes of `python`.

    It holds an empty package for each real one with entry points of ours, which hides the real one's metadata: a test
    meets no backend and no plugin but its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.add("snn-core", version="0.1.0")
        for package in _with_entry_points_of_ours() - {"snn-core"}:
            self.add(package)

    def add(
        self,
        package: str,
        *,
        version: str = "1.0",
        modules: Optional[Mapping[str, str]] = None,
        **groups: Mapping[str, str],
    ) -> None:
        """Install a package: its modules' source by name, and entry points as `backends={"cpu": "module:Class"}`."""
        stem = package.replace("-", "_")
        for old in self.folder.glob(f"{stem}-*.dist-info"):
            shutil.rmtree(str(old))
        info = self.folder / f"{stem}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        lines = []
        for group, points in groups.items():
            lines += [f"[snn.{group}]", *(f"{name} = {value}" for name, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        for name, source in (modules or {}).items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(source))

    def add_backend(
        self,
        name: str,
        *,
        package: Optional[str] = None,
        top: str = "",
        probe: str = "return Health('ready', 'a device')",
        api: Any = 1,
        priority: Any = 10,
        source: Optional[str] = None,
    ) -> None:
        """Install package `snn-backend-NAME` with one backend. `top` runs at import, `probe` when it is probed."""
        package = package or f"snn-backend-{name}"
        module = package.replace("-", "_") + f"_{self.folder.name}"
        if source is None:
            source = BACKEND.format(name=name, top=top, probe=probe, api=api, priority=priority)
        self.add(package, modules={module: source}, backends={name: f"{module}:Device"})

    def environment(self) -> Dict[str, str]:
        path = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}

    def python(self, *arguments: str, timeout: float = 60.0) -> "subprocess.CompletedProcess[str]":
        """Run a new interpreter that sees these packages, in an empty folder."""
        empty = self.folder / "empty"
        empty.mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment(),
            cwd=str(empty),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def snn(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run the command `snn` in a new interpreter that sees these packages."""
        return self.python("-m", "snn_core", *arguments)


def _with_entry_points_of_ours() -> Set[str]:
    found = metadata.distributions()
    return {str(d.metadata["Name"]) for d in found if any(p.group.startswith("snn.") for p in d.entry_points)}


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    """Throw-away packages for processes that the test starts."""
    return Packages(tmp_path / f"site_{abs(hash(str(tmp_path))):x}")


@pytest.fixture
def installed(packages: Packages, monkeypatch: pytest.MonkeyPatch) -> Iterator[Packages]:
    """Throw-away packages that this process sees as well; their modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(packages.folder))
    yield packages
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(packages.folder)):
            del sys.modules[name]
