"""Budgets in two processes: those of the joint batch."""

import pytest

import snn_core as snn
from snn_core.backend import Tolerance
from snn_core.testing.compare import require_same_tensors
from snn_core.testing.fit import fit, require_same_outcome
from snn_core.testing.nets import dense
from snn_core.testing.processes import in_processes
from snn_metrics import terms

# sums over the batch in another order, float64
WITHIN = Tolerance(1e-12, 1e-15)


@pytest.mark.slow
def test_a_budget_of_two_processes_is_the_joint_batch_s() -> None:
    # shares of 2 and 3 samples; on its own, each would exceed the budget by another amount
    budget = terms.SynOpsBudget(target=30.0)
    trial = dense(15, size=5, terms=(budget, terms.SpikeRate()), dtype="float64")
    one, other = in_processes(snn.EagerBackend(), trial, 2)
    expected = fit(snn.EagerBackend(), trial)
    assert min(row.penalties[0] for row in expected.rows) > 1e-3  # it binds
    require_same_outcome(one.outcome, expected, WITHIN)
    require_same_tensors("weight", other.outcome.weights, one.outcome.weights)
