#!/usr/bin/env python3.11
"""Set up what is needed, then do it. Needs Python 3.11 and git; everything else comes from the package registry.

python3.11 start.py train [ARGS]     train the seed network on the bundled digits: `snn train ARGS` in `.venv`
python3.11 start.py test [ARGS]      run everything that must pass: `tox ARGS`
python3.11 start.py SESSION [ARGS]   run a nox session, for instance `dev`; `list` names them
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BIN = "Scripts" if os.name == "nt" else "bin"
TOOLS = ROOT / ".tools"
DEV = ROOT / ".venv"
FLOOR = "3.8"  # the Python of tox's environments in FLOORS
FLOORS = ("floor", "ipu")


def stale(stamp: Path, *inputs: Path) -> bool:
    """Return whether an environment must be set up again: never finished, or older than what defines it."""
    return not stamp.exists() or stamp.stat().st_mtime < max(path.stat().st_mtime for path in inputs)


def run(*command: "str | Path") -> None:
    """Run a command in the repository and leave with its exit status if it fails."""
    status = subprocess.call([str(part) for part in command], cwd=ROOT)
    if status:
        sys.exit(status)


def become(*command: "str | Path") -> None:
    """Turn this process into the command, so that Ctrl-C and SIGTERM reach it and nothing else."""
    os.chdir(ROOT)
    if os.name == "nt":  # exec on Windows gives the console back before the command ends
        sys.exit(subprocess.call([str(part) for part in command]))
    sys.stdout.flush()
    os.execv(command[0], [str(part) for part in command])


def set_up_tools() -> None:
    """Make `.tools`, which holds tox and nox."""
    pins = ROOT / "constraints" / "tools.txt"
    stamp = TOOLS / "set-up"
    if not stale(stamp, pins):
        return
    print("start.py: setting up .tools (tox, nox)", flush=True)
    try:
        import ensurepip  # noqa: F401  Debian splits it off
        import venv
    except ImportError:
        sys.exit("start.py: this Python has no venv module; on Debian and Ubuntu: apt install python3.11-venv")
    venv.create(TOOLS, with_pip=True, clear=True)
    wanted = ("tox", "nox", "uv", "virtualenv")
    run(TOOLS / BIN / "python", "-m", "pip", "install", "--quiet", "--constraint", pins, *wanted)
    stamp.touch()


def find_floor() -> None:
    """Make sure that tox finds a Python of the floor's version: on PATH, pyenv's or uv's, else fetched by uv."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    # pyenv's shims answer for the active version only, so its own folders go last on PATH.
    folders = sorted(str(path / "bin") for path in versions.glob(f"{FLOOR}.*"))
    os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *folders])
    probe = f"import sys, python_discovery; sys.exit(python_discovery.get_interpreter('cpython{FLOOR}') is None)"
    known = [str(TOOLS / BIN / "python"), "-c", probe]
    if subprocess.call(known) == 0:
        return
    print(f"start.py: no Python {FLOOR} here; fetching one with uv", flush=True)
    subprocess.call([str(TOOLS / BIN / "uv"), "python", "install", FLOOR])
    if subprocess.call(known) != 0:
        sys.exit(
            f"start.py: the environments for the floor and the IPU need Python {FLOOR}; none was found on PATH, in "
            f"pyenv or in uv, and uv could not fetch one. Install it (pyenv install {FLOOR}, say) and run this "
            "again, or name the other environments: python3.11 start.py test -e lint,types,core"
        )


def test(arguments: "list[str]") -> None:
    """Run tox."""
    named = any(word.startswith(("-e", "--env")) for word in arguments)
    if not named or any(floor in word for word in arguments for floor in FLOORS):
        find_floor()
    become(TOOLS / BIN / "tox", *arguments)


def train(arguments: "list[str]") -> None:
    """Set `.venv` up where it is missing or older than what defines it, then train in it."""
    if stale(DEV / "set-up", ROOT / "constraints" / "everyday.txt", *ROOT.glob("packages/*/pyproject.toml")):
        run(TOOLS / BIN / "nox", "--session", "dev")
    become(DEV / BIN / "snn", "train", *arguments)


def main() -> None:
    """Read the command line and do what it says."""
    if sys.version_info[:2] != (3, 11):
        sys.exit(f"start.py: this is Python {sys.version.split()[0]}; run it with Python 3.11: python3.11 start.py")
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    name, arguments = sys.argv[1], sys.argv[2:]
    set_up_tools()
    if name == "test":
        test(arguments)
    elif name == "train":
        train(arguments)
    elif name == "list":
        become(TOOLS / BIN / "nox", "--list")
    else:
        become(TOOLS / BIN / "nox", "--session", name, "--", *arguments)


if __name__ == "__main__":
    main()
