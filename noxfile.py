"""What takes arguments, needs a device or produces something. What must pass to merge is tox's (tox.ini).

Run a session with `python3.11 start.py SESSION [ARGS]`, or `nox -s SESSION -- ARGS` where nox is installed.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

import nox
from packaging.specifiers import SpecifierSet

nox.needs_version = ">=2025.2.9"
nox.options.error_on_external_run = True
nox.options.sessions = ["dev"]

ROOT = Path(__file__).resolve().parent
BIN = "Scripts" if os.name == "nt" else "bin"
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
EVERYDAY = ROOT / "constraints" / "everyday.txt"
TOOLS = ROOT / "constraints" / "tools.txt"
PEERS = sorted(path.stem[len("parity-") :] for path in ROOT.glob("constraints/parity-*.txt"))
CHECKERS = ("mypy", "pytest-xdist", "ruff")

# Constraints file: Python, uv's resolution, packages, their extras, further requirements.
LOCKS = {
    "everyday": (
        "3.11",
        "highest",
        ("core", "metrics", "backend-cpu", "backend-ipu"),
        ("tensorboard", "testing"),
        ("torch==2.13.0", *CHECKERS),
    ),
    "floor": ("3.8", "lowest-direct", ("core", "metrics", "backend-ipu"), ("testing",), ("torch==2.0.1",)),
    "vision": ("3.11", "highest", ("core",), ("testing", "vision"), ("torch==2.11.0", "torchvision==0.26.0")),
}


@nox.session(venv_backend="none")
def dev(session: nox.Session) -> None:
    """Make or update `.venv`, with every package installed editable and the checkers."""
    venv = ROOT / ".venv"
    python = venv / BIN / "python"
    if not python.exists():
        session.run(sys.executable, "-m", "virtualenv", "--quiet", str(venv), external=True)
    editable = [word for package in PACKAGES for word in ("--editable", f"{package}{extras(package)}")]
    install = (str(python), "-m", "pip", "install", "--quiet", "--constraint", str(EVERYDAY))
    session.run(*install, *editable, *CHECKERS, external=True)
    (venv / "set-up").touch()
    activate = r".venv\Scripts\activate" if os.name == "nt" else ". .venv/bin/activate"
    session.log(f"ready: {activate}")


def extras(package: Path) -> str:
    """Return the extras that `dev` installs with a package: those that bring no torch of their own."""
    declared = nox.project.load_toml(package / "pyproject.toml")["project"].get("optional-dependencies", {})
    wanted = sorted({"tensorboard", "testing"} & set(declared))
    return f"[{','.join(wanted)}]" if wanted else ""


@nox.session(python="3.11", reuse_venv=True)
def bench(session: nox.Session) -> None:
    """Time this project beside its peers: `bench [--quick] [--only a,b] [--peers snntorch]`; see docs/benchmarks.md.

    Each peer gets an environment of its own, unless `--python PEER=PATH` names one. `bench NAME.py [ARGS]` runs another
    script of benchmarks/.
    """
    session.install("--constraint", str(EVERYDAY), *[str(package) for package in PACKAGES])
    words = session.posargs
    if words[:1] and words[0].endswith(".py"):
        session.run("python", str(ROOT / "benchmarks" / words[0]), *words[1:])
        return
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--python", action="append", default=[])
    options, _ = parser.parse_known_args(words)
    named = {word.split("=")[0] for word in options.python}
    made = [f"--python={peer}={peer_python(session, peer)}" for peer in PEERS if peer in options.peers.split(",")
            and peer not in named]  # fmt: skip
    session.run("python", str(ROOT / "benchmarks" / "run.py"), *words, *made)


def peer_python(session: nox.Session, peer: str) -> Path:
    """Return the Python of a peer's environment, which is made anew when the files that define it are newer."""
    venv = ROOT / ".nox" / f"bench-{peer}"
    python, stamp, pins = venv / BIN / "python", venv / "set-up", ROOT / "constraints" / f"parity-{peer}.txt"
    if not stamp.exists() or stamp.stat().st_mtime < max(path.stat().st_mtime for path in (EVERYDAY, pins)):
        session.run(sys.executable, "-m", "virtualenv", "--quiet", "--clear", str(venv), external=True)
        install = (str(python), "-m", "pip", "install", "--quiet")
        # what the peers need of snn-core's own needs; then as in tox's parity environments
        session.run(*install, "--constraint", str(EVERYDAY), "torch", "numpy", "matplotlib", external=True)
        # Without --no-deps the peers bring torchvision, and with it another torch.
        session.run(*install, "--no-deps", "--requirement", str(pins), external=True)
        stamp.touch()
    return python


@nox.session(venv_backend="none")
def hardware(session: nox.Session) -> None:
    """Check a backend on this machine's device: `hardware BACKEND [PYTHON]`, a Python with the device's torch.

    A backend whose package has `tests/hardware` is checked by that, any other by the conformance kit.
    """
    if not 1 <= len(session.posargs) <= 2:
        session.error(
            "name the backend and, unless it is .venv's, the Python with the device's torch: ipu ~/poptorch/bin/python"
        )
    backend, *rest = session.posargs
    python = Path(rest[0]).expanduser().absolute() if rest else ROOT / ".venv" / BIN / "python"
    if rest:
        ask = "import platform as p; from importlib.metadata import version as v; print(v('torch'), p.python_version())"
        torch, version = session.run(str(python), "-c", ask, silent=True, external=True).split()
        # The installed torch is named, so that pip keeps it: it is the device's. Without its cache, in which pip of
        # Python 3.8 keeps the wheel of a folder whose name has a hyphen, whatever the folder has become.
        install = (str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", f"torch=={torch}")
        fitting = [f"{package}[testing]" for package in PACKAGES if runs_on(package, version)]
        session.run(*install, *fitting, external=True)
    checks = ROOT / "packages" / f"snn-backend-{backend}" / "tests" / "hardware"
    if not checks.is_dir():
        session.run(str(python.with_name("snn")), "conformance", backend, external=True)
        return
    # confcutdir keeps the ordinary tests' doubles out; what a device's own package warns of is not ours to mend.
    pytest = (str(python), "-m", "pytest", f"--rootdir={ROOT}", f"--confcutdir={checks}", "-W", "default")
    settings = ("-c", str(ROOT / "pyproject.toml"), "-o", "python_files=check_*.py")
    session.run(*pytest, *settings, str(checks), external=True)


def runs_on(package: Path, version: str) -> bool:
    """Return whether a package can be installed into this version of Python."""
    wanted = nox.project.load_toml(package / "pyproject.toml")["project"]["requires-python"]
    return SpecifierSet(wanted).contains(version)


@nox.session(python="3.11")
def build(session: nox.Session) -> None:
    """Build and check the sdist and the wheel of every package, or of those named, into dist/."""
    session.install("--constraint", str(TOOLS), "build", "twine")
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    for package in named(session):
        session.run("python", "-m", "build", "--outdir", str(dist), str(package), env={"PIP_CONSTRAINT": str(TOOLS)})
    session.run("twine", "check", "--strict", *[str(path) for path in sorted(dist.iterdir())])


@nox.session(python="3.11")
def changelog(session: nox.Session) -> None:
    """Turn a package's fragments into the section of its next release: `changelog PACKAGE [--draft]`."""
    session.install("--constraint", str(TOOLS), "towncrier")
    options = [word for word in session.posargs if word.startswith("-")]
    for package in named(session):
        version = nox.project.load_toml(package / "pyproject.toml")["project"]["version"]
        session.run("towncrier", "build", "--yes", "--dir", str(package), "--version", version, *options)


@nox.session(venv_backend="none")
def lock(session: nox.Session) -> None:
    """Write constraints/*.txt again after a dependency changed; `lock --upgrade` also takes the newest releases."""
    for name, (python, resolution, locked, wanted, further) in LOCKS.items():
        source, ours = (Path(session.create_tmp()) / f"{name}.{suffix}" for suffix in ("in", "ours"))
        source.write_text("\n".join(further))
        # our packages need each other, and the registry has none of them
        ours.write_text("\n".join(f"{package.name} @ {package.as_uri()}" for package in PACKAGES))
        session.run(
            *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-annotate", "--python-version", python),
            *("--custom-compile-command", "python3.11 start.py lock"),
            *("--python-platform", "x86_64-manylinux_2_28", "--resolution", resolution),
            *[f"--extra={extra}" for extra in wanted],
            *("--output-file", str(ROOT / "constraints" / f"{name}.txt")),
            *("--override", str(ours)),
            *[f"--no-emit-package={package.name}" for package in PACKAGES],
            *session.posargs,
            *[str(ROOT / "packages" / f"snn-{package}" / "pyproject.toml") for package in locked],
            str(source),
            external=True,
        )


def named(session: nox.Session) -> "list[Path]":
    """Return the packages that the session's arguments name, or all."""
    names = [word for word in session.posargs if not word.startswith("-")]
    known = {package.name: package for package in PACKAGES}
    for name in names:
        if name not in known:
            session.error(f"no package {name!r}; it has {', '.join(known)}")
    return [known[name] for name in names] or PACKAGES
