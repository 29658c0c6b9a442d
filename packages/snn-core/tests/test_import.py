"""`import snn_core`: quick, without torch, and every public name there when it is asked for."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Dict

import pytest

import snn_core


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.parametrize(
    "module", ["", ".registry", ".plugins", ".probing", ".cli.app", ".cli.backends", ".cli.plugins"]
)
def test_import_brings_neither_torch_nor_numpy(module: str) -> None:
    loaded = _run(
        f"import snn_core{module}, sys; print([m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_import_takes_less_than_0_15_s() -> None:
    # Timed inside, so that the interpreter's own start does not count; the median, so that a busy moment does not.
    code = "import time; t = time.perf_counter(); import snn_core; print(time.perf_counter() - t)"
    assert statistics.median(float(_run(code)) for _ in range(7)) < 0.15


def test_every_public_name_can_be_had() -> None:
    missing = [name for name in snn_core._HOME if getattr(snn_core, name, None) is None]
    assert missing == []


def test_dir_and_star_import_offer_every_public_name() -> None:
    assert set(snn_core.__all__) <= set(dir(snn_core))
    # The version is metadata's, which a test of the source tree alone does not have.
    assert set(snn_core.__all__) == {*snn_core._HOME, "__version__"}


def test_type_checkers_see_exactly_the_public_names() -> None:
    tree = ast.parse(Path(snn_core.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen: Dict[str, str] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, "a type checker takes only `import X as X` for public"
            seen[alias.name] = str(node.module)[len("snn_core.") :]
    assert seen == snn_core._HOME


def test_an_unknown_name_is_an_attribute_error_with_the_nearest_one() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Sequental' \(did you mean 'Sequential'\?\)"):
        _ = snn_core.Sequental  # type: ignore[attr-defined]


def test_a_public_name_is_the_module_s_own_object() -> None:
    from snn_core.errors import ConfigError

    assert snn_core.ConfigError is ConfigError
    assert snn_core.registry is sys.modules["snn_core.registry"]
