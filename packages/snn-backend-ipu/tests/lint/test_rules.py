"""Every rule is documented, with the severity that it has."""

import re
from pathlib import Path

from snn_backend_ipu.lint.rules import RULES

PAGE = Path(__file__).resolve().parents[4] / "docs" / "lint.md"
ROW = re.compile(r"^\| `([a-z0-9-]+)` \| (error|warning) \|", re.MULTILINE)


def test_the_documentation_lists_every_rule_with_its_severity() -> None:
    assert dict(ROW.findall(PAGE.read_text(encoding="utf-8"))) == {name: rule.severity for name, rule in RULES.items()}
