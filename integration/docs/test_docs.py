"""The documentation's Python runs, its links lead somewhere, and no hook goes without a word."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from snn_core import hookspecs

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
# "py" marks what cannot run here: it needs the network, or a device of the reader's own
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if BLOCK.search(p.read_text(encoding="utf-8"))], ids=named)
def test_the_page_s_python_runs_from_top_to_bottom(page: Path, tmp_path: Path) -> None:
    # one program a page: later blocks use what earlier ones made
    source = tmp_path / "page.py"
    source.write_text("\n".join(BLOCK.findall(page.read_text(encoding="utf-8"))), encoding="utf-8")
    done = subprocess.run([sys.executable, "page.py"], cwd=str(tmp_path), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_page_s_links_lead_to_files(page: Path) -> None:
    prose = FENCED.sub("", page.read_text(encoding="utf-8"))
    targets = [page.parent / link for link in LINK.findall(prose)]
    assert [str(target) for target in targets if not target.exists()] == []


def test_every_hook_is_documented() -> None:
    text = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
    hooks = [name for name in vars(hookspecs) if name.startswith("snn_")]
    assert hooks
    assert [name for name in hooks if f"`{name}(" not in text] == []
