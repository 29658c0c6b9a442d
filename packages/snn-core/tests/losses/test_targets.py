"""Bad targets and bad settings get one typed error that says what, got, allowed and what to do."""

import pytest
import torch

from snn_core.errors import ConfigError, DataError, ShapeError
from snn_core.losses import (
    TET,
    CountCrossEntropy,
    CountMSE,
    MaxMembraneCrossEntropy,
    MembraneMSE,
    OutputMAE,
    OutputMSE,
    RateMSE,
    SpikeRateL1,
    TemporalCrossEntropy,
    TemporalMSE,
)

SHAPE = (25, 4, 10)  # T, B, C
LABELLED = [CountCrossEntropy(), TET(), MaxMembraneCrossEntropy(), MembraneMSE(), TemporalMSE(), TemporalCrossEntropy()]


@pytest.mark.parametrize("loss", LABELLED, ids=str)
def test_good_labels_pass(loss):
    loss.check_target(torch.tensor([0, 9, 3, 3]), SHAPE)
    loss.check_target(torch.tensor([0, 9, 3, 3], dtype=torch.uint8), torch.Size(SHAPE))


@pytest.mark.parametrize("loss", LABELLED, ids=str)
@pytest.mark.parametrize("label", [10, -1, 255])
def test_a_label_out_of_range_is_named_with_the_classes(loss, label):
    with pytest.raises(DataError, match=f"label {label}, and the model has 10 classes, 0 to 9; renumber"):
        loss.check_target(torch.tensor([0, label, 3, 3]), SHAPE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_labels_that_are_no_whole_numbers_are_refused(dtype):
    with pytest.raises(DataError, match=rf"{dtype}.*call \.long\(\)"):
        CountCrossEntropy().check_target(torch.ones(4, dtype=dtype), SHAPE)


def test_labels_of_another_shape_are_refused():
    for shape in ((4, 1), (4, 10)):
        with pytest.raises(DataError, match=rf"\({shape[0]}, {shape[1]}\).*\(4,\)"):
            CountCrossEntropy().check_target(torch.zeros(shape, dtype=torch.int64), SHAPE)
    for shape in ((3,), (5,), ()):
        with pytest.raises(DataError, match="4 samples"):
            CountCrossEntropy().check_target(torch.zeros(shape, dtype=torch.int64), SHAPE)


def test_an_empty_batch_is_refused():
    with pytest.raises(DataError, match="empty"):
        CountCrossEntropy().check_target(torch.zeros(0, dtype=torch.int64), (25, 0, 10))


def test_a_target_that_is_no_tensor_is_refused():
    for loss in (CountCrossEntropy(), MembraneMSE(), OutputMSE()):
        with pytest.raises(DataError, match="list"):
            loss.check_target([0, 1, 2, 3], SHAPE)


@pytest.mark.parametrize("loss", LABELLED, ids=str)
def test_an_output_of_pixels_is_refused_with_the_way_out(loss):
    with pytest.raises(ShapeError, match=r"\[T, B, C\].*\(output, target\)"):
        loss.check_target(torch.zeros(4, dtype=torch.int64), (25, 4, 10, 8, 8))


def test_outputs_must_be_a_multiple_of_the_population():
    CountCrossEntropy(population=5).check_target(torch.tensor([0, 1, 0, 1]), SHAPE)
    with pytest.raises(DataError, match="2 classes"):
        CountCrossEntropy(population=5).check_target(torch.tensor([0, 1, 2, 1]), SHAPE)
    with pytest.raises(ConfigError, match="population is 3 and the model has 10 outputs"):
        CountCrossEntropy(population=3).check_target(torch.tensor([0, 1, 0, 1]), SHAPE)


def test_class_weights_must_be_one_for_each_class():
    CountMSE(class_weights=torch.ones(2), population=5).check_target(torch.tensor([0, 1, 0, 1]), SHAPE)
    with pytest.raises(ConfigError, match="9 class weights and the model 10 classes"):
        CountCrossEntropy(class_weights=[1.0] * 9).check_target(torch.zeros(4, dtype=torch.int64), SHAPE)
    with pytest.raises(ConfigError, match="values, not labels"):
        MembraneMSE(class_weights=[1.0] * 10).check_target(torch.zeros(4, 10), SHAPE)


@pytest.mark.parametrize(
    ("loss", "shape", "output"),
    [
        (MembraneMSE(), (4, 10), SHAPE),
        (MembraneMSE(), (25, 4, 10), SHAPE),
        (MembraneMSE(), (4,), (25, 4, 1)),
        (TemporalMSE(), (4, 10), SHAPE),
        (TemporalMSE(), (4,), (25, 4, 1)),
        (OutputMSE(), (4, 10), SHAPE),
        (OutputMSE(), (4,), (25, 4, 1)),
        (OutputMSE(), (4,), (25, 4)),
        (OutputMSE("last"), (4, 3, 8, 8), (25, 4, 3, 8, 8)),
        (OutputMAE("steps"), (25, 4, 10), SHAPE),
        (OutputMAE("steps"), (25, 4), (25, 4, 1)),
    ],
)
def test_values_of_the_outputs_shape_pass_and_can_be_computed(loss, shape, output):
    values = torch.rand(shape)
    loss.check_target(values, output)
    x = torch.randn(output)
    assert loss.per_sample(x, values, {"mem": x}).shape == (4,)


@pytest.mark.parametrize(
    ("loss", "shape", "output"),
    [
        (MembraneMSE(), (4, 9), SHAPE),
        (MembraneMSE(), (24, 4, 10), SHAPE),
        (MembraneMSE(), (4,), SHAPE),
        (TemporalMSE(), (4, 1), SHAPE),
        (OutputMSE(), (4,), SHAPE),
        (OutputMSE(), (25, 4, 10), SHAPE),
        (OutputMAE("steps"), (4, 10), SHAPE),
        (OutputMAE("steps"), (4,), (25, 4)),
        (OutputMAE("steps"), (24, 4, 10), SHAPE),
    ],
)
def test_values_of_another_shape_are_refused(loss, shape, output):
    with pytest.raises(DataError, match="must"):
        loss.check_target(torch.zeros(shape), output)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(bad):
    values = torch.zeros(4, 10)
    values[2, 3] = bad
    for loss in (OutputMSE(), MembraneMSE(), TemporalMSE()):
        with pytest.raises(DataError, match="NaN or infinite"):
            loss.check_target(values, SHAPE)


def test_values_that_are_no_real_numbers_are_refused():
    for dtype in (torch.bool, torch.complex64):
        with pytest.raises(DataError, match=str(dtype)):
            OutputMSE().check_target(torch.zeros(4, 10, dtype=dtype), SHAPE)


def test_sparsity_takes_any_target():
    SpikeRateL1().check_target(torch.zeros(7, 7), SHAPE)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CountCrossEntropy(population=0),
        lambda: CountCrossEntropy(population=2.0),
        lambda: CountCrossEntropy(population=True),
        lambda: CountCrossEntropy(class_weights=[1.0, -1.0]),
        lambda: CountCrossEntropy(class_weights=[0.0, 0.0]),
        lambda: CountCrossEntropy(class_weights=[]),
        lambda: CountCrossEntropy(class_weights=[1.0, float("nan")]),
        lambda: CountCrossEntropy(class_weights=2.0),
        lambda: CountCrossEntropy(class_weights="ab"),
        lambda: CountMSE(correct_rate=0.2, incorrect_rate=0.2),
        lambda: CountMSE(correct_rate=1.5),
        lambda: RateMSE(incorrect_rate=-0.1),
        lambda: RateMSE(correct_rate=float("nan")),
        lambda: RateMSE(correct_rate="0.8"),
        lambda: TET(lam=1.1),
        lambda: TET(level=float("inf")),
        lambda: MembraneMSE(on_target=0.0),
        lambda: MembraneMSE(on_target=float("inf")),
        lambda: TemporalMSE(on_target=3, off_target=3),
        lambda: TemporalMSE(on_target=5, off_target=2),
        lambda: TemporalMSE(on_target=-1, off_target=0),
        lambda: TemporalMSE(on_target=-1, off_target=-5),
        lambda: TemporalMSE(on_target=0.5),
        lambda: TemporalMSE(tolerance=-1),
        lambda: TemporalCrossEntropy(inverse="inverse"),
        lambda: OutputMSE("men"),
    ],
)
def test_a_bad_setting_is_refused_when_made(make):
    with pytest.raises(ConfigError, match=r"must|fire first"):
        make()


def test_a_negative_goal_before_the_first_step_is_refused():
    with pytest.raises(ConfigError, match="-25 or more"):
        TemporalMSE(on_target=-26).check_target(torch.zeros(4, dtype=torch.int64), SHAPE)
