"""Energy: joules by hand, and no figure without a source."""

import dataclasses
import math
import pickle
import re

import pytest
import torch

from snn_core.errors import ConfigError, DataError
from snn_metrics.energy import COSTS, OperationCost, cost_named, energy

OWN = {"ac_pj": 2.0, "mac_pj": 5.0, "process_nm": 22, "number_format": "int4", "citation": 'Doe, "A Chip", 2024'}


def test_joules_are_accumulates_and_multiply_accumulates_at_their_costs():
    fp32 = COSTS["horowitz-2014-fp32-45nm"]
    # 10 x 0.9 pJ + 2 x (0.9 + 3.7) pJ = 18.2 pJ; 1e-15 relative is a few roundings of float64
    assert energy(10.0, 2.0, fp32) == pytest.approx(18.2e-12, rel=1e-15)
    assert energy(1e12, 0.0, fp32) == pytest.approx(0.9, rel=1e-15)


@pytest.mark.parametrize(
    ("name", "add_pj", "multiply_pj", "nm"),
    [
        ("horowitz-2014-fp32-45nm", 0.9, 3.7, 45),
        ("horowitz-2014-fp16-45nm", 0.4, 1.1, 45),
        ("horowitz-2014-int32-45nm", 0.1, 3.1, 45),
        ("horowitz-2014-int8-45nm", 0.03, 0.2, 45),
        ("jouppi-2021-fp16-7nm", 0.16, 0.34, 7),
        ("jouppi-2021-bf16-7nm", 0.11, 0.21, 7),
        ("jouppi-2021-int8-7nm", 0.007, 0.07, 7),
    ],
)
def test_an_arithmetic_cost_is_the_papers_add_and_multiply(name, add_pj, multiply_pj, nm):
    cost = COSTS[name]
    assert cost.ac_pj == add_pj
    assert cost.mac_pj == pytest.approx(add_pj + multiply_pj, rel=1e-12)
    assert cost.process_nm == nm
    assert "No memory" in cost.note


def test_every_published_cost_has_its_citation_its_node_and_what_it_leaves_out():
    assert COSTS
    for name, cost in COSTS.items():
        assert cost.name == name
        assert re.search(r"\b(19|20)\d\d\b", cost.citation), name
        assert re.search(r"(Table|Fig\.|pp\.)", cost.citation), name
        assert cost.process_nm > 0
        assert cost.number_format
        assert cost.note
        assert name.endswith(f"-{cost.process_nm}nm")


def test_a_tensor_of_counts_gives_a_tensor_of_joules():
    acs = torch.tensor([0.0, 1.0, 1e6], dtype=torch.float64)
    macs = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    joules = energy(acs, macs, COSTS["horowitz-2014-int8-45nm"])
    assert joules.dtype == torch.float64
    torch.testing.assert_close(joules, torch.tensor([0.23e-12, 0.03e-12, 0.03e-6], dtype=torch.float64))


def test_a_chip_of_spikes_prices_synaptic_events():
    assert energy(1e6, 0.0, COSTS["davies-2018-loihi-14nm"]) == pytest.approx(23.6e-6)
    assert energy(1e6, 0.0, COSTS["merolla-2014-truenorth-28nm"]) == pytest.approx(26e-6)
    zero = torch.zeros(2)
    torch.testing.assert_close(energy(zero + 1, zero, COSTS["davies-2018-loihi-14nm"]), zero + 23.6e-12)


@pytest.mark.parametrize("macs", [1.0, torch.tensor([0.0, 3.0])])
def test_multiply_accumulates_are_refused_where_the_source_prices_none(macs):
    with pytest.raises(ConfigError, match="no multiply-accumulate"):
        energy(macs * 0, macs, COSTS["davies-2018-loihi-14nm"])


@pytest.mark.parametrize("citation", ["", "  ", None])
def test_a_cost_without_a_source_is_refused(citation):
    with pytest.raises(ConfigError, match="no figure without a source"):
        OperationCost("own", **{**OWN, "citation": citation})


@pytest.mark.parametrize("field", ["ac_pj", "mac_pj", "process_nm"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "1", True])
def test_a_cost_that_is_no_positive_number_is_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        OperationCost("own", **{**OWN, field: value})


def test_an_own_cost_with_a_source_is_taken_and_cannot_be_changed():
    own = OperationCost("own", **OWN)
    assert energy(3.0, 1.0, own) == pytest.approx(11e-12)
    assert pickle.loads(pickle.dumps(own)) == own
    with pytest.raises(dataclasses.FrozenInstanceError):
        own.ac_pj = 1.0
    with pytest.raises(TypeError):
        COSTS["own"] = own


@pytest.mark.parametrize(("acs", "macs", "named"), [(-1.0, 0.0, "acs"), (torch.ones(1), -torch.ones(1), "macs")])
def test_a_negative_count_is_refused(acs, macs, named):
    with pytest.raises(DataError, match=named):
        energy(acs, macs, COSTS["horowitz-2014-fp32-45nm"])


def test_a_name_is_looked_up_with_help():
    assert cost_named("davies-2018-loihi-14nm") is COSTS["davies-2018-loihi-14nm"]
    with pytest.raises(ConfigError, match="did you mean 'davies-2018-loihi-14nm'"):
        cost_named("davies-2018-loihi-14")
    with pytest.raises(ConfigError, match="cost_named"):
        energy(1.0, 0.0, "davies-2018-loihi-14nm")
