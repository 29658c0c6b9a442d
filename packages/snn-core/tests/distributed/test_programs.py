"""Programs of two and of three processes, held against one process with the joint batch.

In float64 the sums over a batch are rounded in another order than one process does, and nothing else differs: equal
within 1e-12 of a tensor's largest magnitude.
"""

import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from programs import TRIALS, trained

from snn_core.backend import Tolerance
from snn_core.testing.compare import require_equal, require_same_tensors
from snn_core.testing.fit import Row, require_same_rows

pytestmark = pytest.mark.slow
WITHIN = Tolerance(1e-12, 1e-15)


@pytest.fixture(scope="session", params=[2, 3])
def joint(request: Any, processes: Any, here: Path, tmp_path_factory: Any) -> List[Dict[str, Any]]:
    """What each process found, by trial."""
    folder = tmp_path_factory.mktemp("programs")
    done = processes(request.param, here / "programs.py", folder)
    assert [one.code for one in done] == [0] * request.param, done
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


@pytest.fixture(scope="session")
def alone() -> Dict[str, Any]:
    return {}


@pytest.mark.parametrize("name", list(TRIALS))
def test_processes_report_and_end_as_one_with_the_joint_batch(name: str, joint: Any, alone: Any) -> None:
    if name not in alone:
        alone[name] = trained(TRIALS[name])
    rows, weights = joint[0][name]
    expected, reached = alone[name]
    require_same_tensors("weight", weights, reached, WITHIN)
    require_same_rows([Row(*row) for row in rows], [Row(*row) for row in expected], WITHIN)


@pytest.mark.parametrize("name", [*TRIALS, "own buffers"])
def test_every_process_has_the_same_bits(name: str, joint: Any) -> None:
    for other in joint[1:]:
        require_same_tensors("weight", other[name][1], joint[0][name][1])
        require_equal("reports", other[name][0], joint[0][name][0])
