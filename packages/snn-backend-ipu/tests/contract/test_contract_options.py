"""Options freeze when they are used, and refuse what they do not know."""

import pytest
import torch
from torch import nn

MUTATIONS = [
    lambda options, poptorch: options.deviceIterations(2),
    lambda options, poptorch: options.replicationFactor(2),
    lambda options, poptorch: options.outputMode(poptorch.OutputMode.All),
    lambda options, poptorch: options.setExecutionStrategy(poptorch.ShardedExecution()),
    lambda options, poptorch: options.enableExecutableCaching("folder"),
    lambda options, poptorch: options.useIpuModel(True),
    lambda options, poptorch: options.Training.gradientAccumulation(2),
    lambda options, poptorch: options.Training.setAutomaticLossScaling(True),
    lambda options, poptorch: options.Precision.enableStochasticRounding(True),
    lambda options, poptorch: options.Precision.halfFloatCasting(poptorch.HalfFloatCastingBehavior.HalfUpcastToFloat),
    lambda options, poptorch: options._Popart.set("autoRecomputation", 3),
    lambda options, poptorch: options.Distributed.configureProcessId(1, 2),
    lambda options, poptorch: options.TensorLocations.numIOTiles(32),
]


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_options_that_an_executor_used_cannot_be_changed(poptorch, mutate):
    options = poptorch.Options()
    executor = poptorch.inferenceModel(nn.Identity(), options)
    for used in (options, executor.options):
        with pytest.raises(AttributeError, match="Can't modify frozen Options"):
            mutate(used, poptorch)


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_options_that_were_not_used_and_clones_of_used_ones_can_be_changed(poptorch, mutate):
    options = poptorch.Options()
    mutate(options, poptorch)
    options = poptorch.Options()
    poptorch.trainingModel(nn.Linear(1, 1), options)
    mutate(options.clone(), poptorch)


def test_options_that_a_loader_used_cannot_be_changed(poptorch):
    options = poptorch.Options()
    poptorch.DataLoader(options, torch.arange(4))
    with pytest.raises(AttributeError, match="Can't modify frozen Options"):
        options.deviceIterations(2)


def test_a_clone_keeps_what_was_set_in_every_part(poptorch):
    options = poptorch.Options().deviceIterations(3)
    options.Training.gradientAccumulation(4)
    options.Precision.enableStochasticRounding(True)
    clone = options.clone()
    assert clone.device_iterations == 3
    assert clone.Training.gradient_accumulation == 4
    # the parts share PopART's options, in the clone too
    clone.Precision.enableStochasticRounding(False)
    assert options._Popart.options["enableStochasticRounding"] is True
    assert clone._Popart.options["enableStochasticRounding"] is False


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda options, poptorch: options.deviceIterations(2.0), AssertionError),
        (lambda options, poptorch: options.autoRoundNumIPUs("yes"), AssertionError),
        (lambda options, poptorch: options.outputMode("all"), AssertionError),
        (lambda options, poptorch: options.outputMode(poptorch.OutputMode.EveryN), AssertionError),
        (lambda options, poptorch: options.connectionType(0), AssertionError),
        (lambda options, poptorch: options.randomSeed("1"), AssertionError),
        (lambda options, poptorch: options.setExecutionStrategy("pipeline"), AssertionError),
        (lambda options, poptorch: options.setAvailableMemoryProportion({0: 0.5}), AttributeError),
        (lambda options, poptorch: options.setAvailableMemoryProportion({"0": 0.5}), AssertionError),
        (lambda options, poptorch: options.Precision.setPartialsType(torch.float64), ValueError),
        (lambda options, poptorch: options.Precision.halfFloatCasting(1), ValueError),
        (lambda options, poptorch: options.Precision.enableFloatingPointExceptions(1), AssertionError),
        (lambda options, poptorch: options.Training.accumulationAndReplicationReductionType(1), ValueError),
        (lambda options, poptorch: options.TensorLocations.numIOTiles(33), AssertionError),
        (lambda options, poptorch: options.unknown, AssertionError),
        (lambda options, poptorch: options.unknownSetter(1), AssertionError),
    ],
)
def test_values_of_the_wrong_kind_are_refused(poptorch, wrong, error):
    with pytest.raises(error):
        wrong(poptorch.Options(), poptorch)


def test_half_float_casting_changes_nothing(poptorch):
    options = poptorch.Options()
    options.Precision.halfFloatCasting(poptorch.HalfFloatCastingBehavior.FloatDowncastToHalf)
    assert options.Precision.half_float_casting == poptorch.HalfFloatCastingBehavior.Default

    class Add(nn.Module):
        def forward(self, x, y):
            return x + y

    executor = poptorch.inferenceModel(Add(), options)
    assert executor(torch.ones(1).half(), torch.ones(1)).dtype == torch.float32


def test_options_of_another_kind_are_refused(poptorch):
    with pytest.raises(poptorch.Error, match=r"Expected poptorch\.Options"):
        poptorch.inferenceModel(nn.Identity(), {"deviceIterations": 2})


def test_the_output_mode_is_final_for_training_and_all_for_inference(poptorch):
    assert poptorch.Options().defaultOutputMode()
    assert poptorch.trainingModel(nn.Linear(1, 1)).options.output_mode == poptorch.OutputMode.Final
    assert poptorch.inferenceModel(nn.Linear(1, 1)).options.output_mode == poptorch.OutputMode.All


def test_the_environment_names_the_cache(poptorch, monkeypatch, tmp_path):
    monkeypatch.setenv("POPTORCH_CACHE_DIR", str(tmp_path))
    assert poptorch.Options()._Popart.options["cachePath"] == str(tmp_path)


@pytest.mark.parametrize(
    "refused",
    [
        lambda options: options.replicationFactor(2),
        lambda options: options.useIpuId(1),
        lambda options: options.Distributed.disable(),
        lambda options: options.Distributed.setEnvVarNames("A", "B"),
        lambda options: options.Distributed.configureProcessId(0, 1),
    ],
)
def test_popdists_options_refuse_what_is_popruns(popdist, refused):
    with pytest.raises(RuntimeError, match=r"Cannot call `.*` with popdist\.poptorch\.Options"):
        refused(popdist.poptorch.Options(ipus_per_replica=2))


def test_popdists_options_are_those_of_the_instance(popdist, poptorch, monkeypatch):
    assert not popdist.isPopdistEnvSet()
    for name, value in (("INSTANCE", 1), ("INSTANCES", 2), ("REPLICAS", 4)):
        monkeypatch.setenv(f"POPDIST_CONTRACT_{name}", str(value))
    options = popdist.poptorch.Options()
    assert isinstance(options, poptorch.Options)
    assert popdist.isPopdistEnvSet()
    assert (options.Distributed.processId, options.Distributed.numProcesses) == (1, 2)
    assert options.replication_factor == popdist.getNumLocalReplicas() == 2
    # the setter is barred, the clone that an executor makes is not
    assert poptorch.inferenceModel(nn.Identity(), options).options.replication_factor == 2


def test_log_levels_are_checked(poptorch):
    poptorch.setLogLevel("WARN")
    with pytest.raises(ValueError, match="Unknown log level: wibble"):
        poptorch.setLogLevel("wibble")
