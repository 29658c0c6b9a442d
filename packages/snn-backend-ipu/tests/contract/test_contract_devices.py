"""Devices, pipelines, files, faults."""

import os
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

X, Y = torch.linspace(-1, 1, 24).reshape(12, 2), torch.arange(12) % 2


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x, y):
        out = self.third(self.second(self.first(x)))
        return out, functional.cross_entropy(out, y)


def staged(poptorch, *names):
    """A network whose layers of these names begin blocks of their own, on IPUs 0, 1, ..."""
    model = Net()
    for ipu, name in enumerate(names):
        poptorch.BeginBlock(getattr(model, name), name, ipu)
    return model


def train(poptorch, model, accumulation=1, strategy=None, **setters):
    options = poptorch.Options()
    options.Training.gradientAccumulation(accumulation)
    for name, value in setters.items():
        getattr(options, name)(value)
    if strategy is not None:
        options.setExecutionStrategy(strategy)
    executor = poptorch.trainingModel(model, options, poptorch.optim.SGD(model.parameters(), lr=0.1))
    executor(X, Y)
    return executor


def test_a_pipeline_needs_accumulation_of_twice_its_stages_less_one(poptorch):
    train(poptorch, staged(poptorch, "first", "second"), 3)
    with pytest.raises(poptorch.Error, match=r"gradient accumulation factor\) must equal at least .* \(3\)"):
        train(poptorch, staged(poptorch, "first", "second"), 2)


def test_a_pipeline_for_inference_needs_as_many_iterations_as_stages(poptorch):
    poptorch.inferenceModel(staged(poptorch, "first", "second"), poptorch.Options().deviceIterations(2))(X, Y)
    with pytest.raises(poptorch.Error, match=r"batchesPerStep\) must equal at least .* \(2\)"):
        poptorch.inferenceModel(staged(poptorch, "first", "second"))(X, Y)


def test_sharded_stages_need_no_accumulation(poptorch):
    train(poptorch, staged(poptorch, "first", "second"), 1, poptorch.ShardedExecution())


def test_stages_can_be_named_in_the_options(poptorch):
    stages = poptorch.PipelinedExecution(poptorch.Stage("first", "second").ipu(0), poptorch.Stage("third").ipu(1))
    model = staged(poptorch, "first", "second", "third")
    train(poptorch, model, 3, stages)
    with pytest.raises(AssertionError, match="Unknown Block 'third'"):
        train(poptorch, staged(poptorch, "first", "second", "third"), 3, poptorch.PipelinedExecution("first", "second"))


def test_a_stage_without_an_ipu_is_refused(poptorch):
    model = Net()
    poptorch.BeginBlock(model.second, "second")
    with pytest.raises(AssertionError, match="no IPU was specified for block second"):
        train(poptorch, model)


def test_a_stage_before_that_of_what_it_reads_is_refused_in_a_pipeline(poptorch):
    with pytest.raises(poptorch.Error, match="on pipeline stage 0 consumes a tensor that is produced on stage 1"):
        train(poptorch, staged(poptorch, "second", "first"), 3)
    train(poptorch, staged(poptorch, "second", "first"), 3, poptorch.ShardedExecution())


class Looped(Net):
    """Each step goes through both layers; what lies between two blocks belongs to the one before."""

    def forward(self, x, y):
        out = [self.second(self.first(x[:, t : t + 1])) for t in range(x.shape[1])]
        total = torch.stack(out).sum(0)
        return total, functional.cross_entropy(total, y)

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(1, 2)


def test_a_loop_over_stages_goes_back_and_is_refused(poptorch):
    model = Looped()
    poptorch.BeginBlock(model.first, "first", 0)
    poptorch.BeginBlock(model.second, "second", 1)
    with pytest.raises(poptorch.Error, match="on pipeline stage 0 consumes a tensor that is produced on stage 1"):
        train(poptorch, model, 3)


def test_a_loop_within_each_stage_is_no_way_back(poptorch):
    class Layerwise(Looped):
        def forward(self, x, y):
            hidden = [self.first(x[:, t : t + 1]) for t in range(x.shape[1])]
            total = torch.stack([self.second(h) for h in hidden]).sum(0)
            return total, functional.cross_entropy(total, y)

    model = Layerwise()
    poptorch.BeginBlock(model.first, "first", 0)
    poptorch.BeginBlock(model.second, "second", 1)
    train(poptorch, model, 3)


def test_a_module_begins_one_block(poptorch):
    with pytest.raises(poptorch.Error, match="already been assigned"):
        poptorch.BeginBlock(poptorch.BeginBlock(nn.Identity(), "a"), "b")


def test_blocks_can_be_removed(poptorch):
    model = staged(poptorch, "first", "second")
    poptorch.removeBlocks(model)
    train(poptorch, model)


def test_a_pipeline_computes_what_one_ipu_does(poptorch):
    plain, piped = Net(), staged(poptorch, "first", "second")
    # an executor that is gone takes its weights along
    kept = train(poptorch, plain, 3), train(poptorch, piped, 3)
    assert all(executor.isCompiled() for executor in kept)
    assert torch.equal(plain.first.weight, piped.first.weight)


def test_the_number_of_ipus_is_a_power_of_two_unless_it_is_rounded(poptorch):
    names = ("first", "second", "third")
    with pytest.raises(poptorch.Error, match="must reserve a minimum of 4"):
        train(poptorch, staged(poptorch, *names), 6)
    train(poptorch, staged(poptorch, *names), 6, autoRoundNumIPUs=True)
    with pytest.raises(poptorch.Error, match="must reserve a minimum of 4"):
        train(poptorch, Net(), replicationFactor=3)


def test_replicas_of_a_pipeline_need_ipus_for_each_stage(poptorch, monkeypatch):
    monkeypatch.setenv("POPTORCH_IPU_MODEL", "0")
    with poptorch._contract.hardware(4):
        train(poptorch, staged(poptorch, "first", "second"), 3, replicationFactor=2)
        with pytest.raises(poptorch.Error, match=r"Failed to acquire 8 IPU\(s\)"):
            train(poptorch, staged(poptorch, "first", "second"), 3, replicationFactor=4)


def test_an_attached_executor_holds_its_ipus_until_it_gives_them_back(poptorch, monkeypatch):
    monkeypatch.setenv("POPTORCH_IPU_MODEL", "0")
    with poptorch._contract.hardware(2):
        one = train(poptorch, Net())
        other = train(poptorch, Net())
        with pytest.raises(poptorch.Error, match=r"Failed to acquire 1 IPU\(s\)"):
            train(poptorch, Net())
        one.detachFromDevice()
        third = train(poptorch, Net())
        with pytest.raises(poptorch.Error, match=r"Failed to acquire 1 IPU\(s\)"):
            one.attachToDevice()
        third.destroy()
        one.attachToDevice()
        assert [run.isAttachedToDevice() for run in (one, other, third)] == [True, True, False]


def test_the_ipu_model_is_never_taken(poptorch):
    held = [train(poptorch, Net()) for _ in range(3)]
    assert all(executor.isAttachedToDevice() for executor in held)


def test_without_hardware_only_the_ipu_model_runs(poptorch, monkeypatch):
    monkeypatch.delenv("POPTORCH_IPU_MODEL")
    assert not poptorch.ipuHardwareIsAvailable()
    with pytest.raises(AssertionError, match="No IPU hardware available"):
        poptorch.ipuHardwareVersion()
    with pytest.raises(poptorch.Error, match=r"Failed to acquire 1 IPU\(s\)"):
        train(poptorch, Net())
    train(poptorch, Net(), useIpuModel=True)


def test_hardware_can_be_pretended(poptorch):
    with poptorch._contract.hardware(2, version=21):
        assert poptorch.ipuHardwareIsAvailable(2)
        assert not poptorch.ipuHardwareIsAvailable(4)
        assert poptorch.ipuHardwareVersion() == 21


def test_an_offline_target_compiles_and_does_not_run(poptorch, tmp_path):
    model = Net()
    options = poptorch.Options().useOfflineIpuTarget(2).useIpuModel(False)
    executor = poptorch.trainingModel(model, options, poptorch.optim.SGD(model.parameters(), lr=0.1))
    executor.compileAndExport(str(tmp_path / "net.popef"), X, Y, export_model=False)
    assert not executor.isAttachedToDevice()
    with pytest.raises(AssertionError, match="offline device"):
        executor(X, Y)
    with pytest.raises(poptorch.Error, match="cannot be used with the IPU Model"):
        poptorch.inferenceModel(Net(), poptorch.Options().useOfflineIpuTarget().useIpuModel(True)).compile(X, Y)


def exported(poptorch, path):
    model = Net()
    executor = poptorch.trainingModel(model, optimizer=poptorch.optim.SGD(model.parameters(), lr=0.1))
    executor.compileAndExport(str(path), X, Y, export_model=False)
    return executor


def test_an_exported_executable_runs_with_the_weights_of_the_model_that_loads_it(poptorch, tmp_path):
    exported(poptorch, tmp_path / "net.popef")
    model = Net()
    with torch.no_grad():
        model.third.weight.zero_()
        model.third.bias.zero_()
    executor = poptorch.trainingModel(model, optimizer=poptorch.optim.SGD(model.parameters(), lr=0.1))
    executor.loadExecutable(str(tmp_path / "net.popef"))
    assert torch.equal(executor(X, Y)[0], torch.zeros(12, 2))


def test_an_executable_of_another_version_is_refused(poptorch, tmp_path):
    path = tmp_path / "net.popef"
    executor = exported(poptorch, path)
    content = {**pickle.loads(path.read_bytes()), "version": "3.3.0"}
    path.write_bytes(pickle.dumps(content))
    executor.destroy()
    with pytest.raises(poptorch.Error, match=r"it is of version 3\.3\.0"):
        poptorch.trainingModel(Net()).loadExecutable(str(path))


class Deeper(Net):
    def forward(self, x, y):
        out, loss = super().forward(x, y)
        return out + 1, loss


@pytest.mark.parametrize(
    ("model", "optimizer", "setters", "what"),
    [
        (Deeper, "SGD", {}, "graph"),
        (Net, "Adam", {}, "optimizer"),
        (Net, "SGD", {"deviceIterations": 2}, "batch"),
    ],
)
def test_an_executable_of_something_else_is_refused(poptorch, tmp_path, model, optimizer, setters, what):
    path = tmp_path / "net.popef"
    exported(poptorch, path)
    mine, options = model(), poptorch.Options()
    for name, value in setters.items():
        getattr(options, name)(value)
    executor = poptorch.trainingModel(mine, options, getattr(poptorch.optim, optimizer)(mine.parameters(), lr=0.1))
    with pytest.raises(poptorch.Error, match=f"was compiled for another {what}"):
        executor.loadExecutable(str(path))


def test_a_model_exported_with_its_executable_can_be_loaded_alone(poptorch, tmp_path):
    path, model = str(tmp_path / "folder" / "net.poptorch"), nn.Linear(2, 2)
    executor = poptorch.inferenceModel(model)
    executor.compileAndExport(path, X)
    assert torch.equal(poptorch.load(path)(X), executor(X))


def test_the_executable_cache_gets_a_file_for_each_graph(poptorch, tmp_path):
    for model in (nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2, bias=False)):
        poptorch.inferenceModel(model, poptorch.Options().enableExecutableCaching(str(tmp_path)))(X)
    assert len(os.listdir(tmp_path)) == 2


def test_a_latency_is_of_the_last_run(poptorch):
    executor = poptorch.inferenceModel(nn.Linear(2, 2), poptorch.Options().deviceIterations(3))
    assert executor.getLatency() == (0.0, 0.0, 0.0)
    executor(X)
    least, greatest, mean = executor.getLatency()
    assert 0 < least <= mean <= greatest
    assert len(executor.getPerfCounters()["input"][0]) == 3


def test_cycles_are_not_counted_unless_asked(poptorch):
    executor = poptorch.inferenceModel(nn.Linear(2, 2))
    with pytest.raises(poptorch.Error, match="logCycleCount"):
        executor.cycleCount()


@pytest.mark.parametrize("stage", ["trace", "compile", "attach", "execute"])
def test_a_fault_happens_once_at_its_stage(poptorch, stage):
    executor = poptorch.inferenceModel(nn.Linear(2, 2))
    poptorch._contract.inject(stage, poptorch.RecoverableError("link down", "IPU_RESET"))
    with pytest.raises(poptorch.RecoverableError) as caught:
        executor(X)
    assert isinstance(caught.value, poptorch.Error)
    assert (caught.value.message, caught.value.recovery_action) == ("link down", "IPU_RESET")
    assert caught.value.type == "poplar_recoverable_runtime_error"
    if stage == "attach":
        executor.destroy()
    assert executor(X).shape == (12, 2)


def test_a_fault_can_wait(poptorch):
    executor = poptorch.inferenceModel(nn.Linear(2, 2))
    poptorch._contract.inject("execute", poptorch.UnrecoverableError("gone"), after=2)
    executor(X)
    executor(X)
    with pytest.raises(poptorch.UnrecoverableError, match="gone"):
        executor(X)


def test_destroying_reads_a_lost_device_and_fails(poptorch):
    class Loss(nn.Linear):
        def forward(self, x):
            return poptorch.identity_loss(super().forward(x), "mean")

    model = Loss(2, 2)
    executor = poptorch.trainingModel(model, optimizer=poptorch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    executor(X)
    with poptorch._contract.losing(poptorch.Error("link down", "poptorch_cpp_error"), after=1):
        executor(X)
        for use in (lambda: executor(X), executor.copyWeightsToHost, executor.destroy, executor.destroy):
            with pytest.raises(poptorch.Error, match="link down"):
                use()
        assert executor.isCompiled()
    executor.destroy()


def test_an_unknown_stage_is_refused(poptorch):
    with pytest.raises(ValueError, match="no stage 'run'"):
        poptorch._contract.inject("run", RuntimeError())


def test_a_failure_early_in_compile_is_hidden_by_that_of_the_clean_up(poptorch):
    model = nn.Linear(2, 2)
    model.register_buffer("spectrum", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(UnboundLocalError, match="cpu_aliases") as caught:
        poptorch.inferenceModel(model)(X)
    assert isinstance(caught.value.__context__, poptorch.Error)
    assert "complex64" in str(caught.value.__context__)


def test_an_injected_failure_early_in_compile_is_hidden_too(poptorch):
    cause = poptorch.Error("out of memory", "poplar_error", "somewhere")
    poptorch._contract.inject("move", cause)
    with pytest.raises(UnboundLocalError) as caught:
        poptorch.inferenceModel(nn.Linear(2, 2))(X)
    assert caught.value.__context__ is cause


def test_an_error_in_forward_leaves_the_model_as_it_was(poptorch):
    class Failing(nn.Linear):
        def forward(self, x):
            raise ZeroDivisionError

    model = Failing(2, 2)
    executor = poptorch.inferenceModel(model)
    with pytest.raises(ZeroDivisionError):
        executor(X)
    assert isinstance(model.weight, nn.Parameter)
    assert model.weight.device.type == "cpu"


def test_forward_knows_that_it_is_traced(poptorch):
    class Where(nn.Module):
        def forward(self, x):
            return x + 1 if poptorch.isRunningOnIpu() else x

    assert torch.equal(poptorch.inferenceModel(Where())(X), X + 1)
    assert torch.equal(Where()(X), X)
