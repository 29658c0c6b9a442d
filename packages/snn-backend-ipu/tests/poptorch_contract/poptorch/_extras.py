"""What an executor does besides running: files, random numbers, times, and the device that it needs."""

import copy
import hashlib
import os
import pickle

import torch

from . import _contract, _wrapping
from ._errors import Error, compiler_error
from ._structure import parsed


class Extras:
    """The part of an executor that needs nothing but its executable."""

    def save(self, filename, export_model=True, save_rng_state=True):
        """Write the compiled model to a file; with export_model the model too, for `poptorch.load`."""
        self._compiled()
        _contract.reach("save")
        content = {"version": self._poptorch_version, "inputs": self._compiled_inputs, "training": None}
        content["compiled_for"] = compiled_for(self._executable)
        content["rng_state"] = self.rng_state if save_rng_state else None
        if export_model:
            model = copy.deepcopy(self._model)
            for module in model.modules():
                for owned in (module._parameters, module._buffers):
                    owned.update((name, _wrapping.plain(value)) for name, value in owned.items())
            content.update(training=self._training, model=model, options=self._options)
        if os.path.dirname(filename):
            os.makedirs(os.path.dirname(filename), exist_ok=True)
        if os.path.isdir(filename):
            filename = os.path.join(filename, "model.poptorch")
        with open(filename, "wb") as file:
            pickle.dump(content, file, protocol=4)

    def compileAndExport(self, filename, *args, export_model=True, **kwargs):
        """Compile and write to a file."""
        self.compile(*args, **kwargs)
        self.save(filename, export_model)

    def loadExecutable(self, filename):
        """Take the executable of a file; it must be of the same version and model. The weights are the model's."""
        _contract.reach("load")
        content = read(filename, self._poptorch_version)
        inputs = content["inputs"]
        positional = parsed(self._model, (), inputs)
        self._compile(positional)
        here = compiled_for(self._executable)
        odd = [name for name, there in content["compiled_for"].items() if here[name] != there]
        if odd:
            self.destroy()
            raise compiler_error(f"{filename} was compiled for another {', '.join(odd)}")
        if content["rng_state"] is not None:
            self.rng_state = content["rng_state"]

    @property
    def rng_state(self):
        """The random numbers' seed and state: a list of integers."""
        generator = self._compiled().generator
        _contract.reach("exchange")
        return [generator.initial_seed(), *generator.get_state().tolist()]

    @rng_state.setter
    def rng_state(self, state):
        generator = self._compiled().generator
        _contract.reach("exchange")
        generator.manual_seed(state[0])
        if len(state) > 1:
            generator.set_state(torch.tensor(state[1:], dtype=torch.uint8))

    def getPerfCounters(self):
        """Return the seconds at which the last run's inputs and outputs moved: here, of the host's own work."""
        times = self._executable.times if self.isCompiled() else []
        starts, ends = [[start for start, _ in times]], [[end for _, end in times]]
        return {"input": starts, "input_complete": starts, "output": ends, "output_complete": ends}

    def _latency(self, first, last):
        counters = self.getPerfCounters()
        spans = [end - start for start, end in zip(counters[first][0], counters[last][0])]
        return (min(spans), max(spans), sum(spans) / len(spans)) if spans else (0.0, 0.0, 0.0)

    def getLatency(self):
        """Return the least, the greatest and the mean time of an iteration of the last run."""
        return self._latency("input", "output_complete")

    def getHostIpuLatency(self):
        """Return the time of moving inputs."""
        return self._latency("input", "input_complete")

    def getComputeLatency(self):
        """Return the time of computing."""
        return self._latency("input_complete", "output")

    def getIpuHostLatency(self):
        """Return the time of moving outputs."""
        return self._latency("output", "output_complete")

    def cycleCount(self):
        """Return the cycles of the last run: there are none here."""
        if not self._options._Popart.options["instrumentWithHardwareCycleCounter"]:
            raise Error("Cycle count logging is disabled. Please set option logCycleCount to True to enable.")
        raise Error("A contract fake counts no cycles: this needs IPU hardware")


def read(filename, version):
    """Return what `save` wrote."""
    with open(filename, "rb") as file:
        content = pickle.load(file)
    if content["version"] != version:
        raise Error(f"Invalid file {filename}: it is of version {content['version']}, this is {version}")
    return content


def compiled_for(executable):
    """Return what an executable holds for good, by name, in values that can be compared and pickled."""
    graph, optimizer = executable.graph, executable.optimizer
    return {
        "graph": [(str(node.function), node.flat_text()) for node in graph.nodes],
        "weights": {name: (tuple(weight.shape), str(weight.dtype)) for name, weight in executable.weights.items()},
        "batch": executable.counts(),
        "output mode": str(executable.options.output_mode),
        "optimizer": None if optimizer is None else optimizer.fixed(),
    }


def check_device(graph, options, training):
    """Refuse a pipeline that goes back or is not filled, a return period that does not divide, and IPUs that cannot be
    had. Return how many IPUs are reserved.
    """
    manager = options._execution_strategy._stages_manager
    stages = manager.stages
    count = len(stages)
    if count > 1 and options._execution_strategy.pipelined:
        graph.check_order(manager.begun)
        needed = 2 * count - 1 if training else count
        depth = options.Training.gradient_accumulation if training else options.device_iterations
        what = "gradient accumulation factor" if training else "batchesPerStep"
        if depth < needed:
            raise compiler_error(
                f"For pipelining, depth ({what}) must equal at least the number of pipeline stages ({needed})"
            )
    period = options.output_return_period
    if (options.device_iterations * options.Training.gradient_accumulation) % period:
        raise compiler_error(f"The number of batches of a call must be a multiple of the return period ({period})")
    ipus = max(stages.values(), default=0) + 1
    return _contract.reserved(options, ipus * options.replication_factor)


def leave_in_cache(graph, popart):
    """Leave a file in the folder of the executable cache, named by what was compiled."""
    if popart.get("enableEngineCaching"):
        text = repr([(str(node.function), node.flat_text()) for node in graph.nodes])
        os.makedirs(popart["cachePath"], exist_ok=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        with open(os.path.join(popart["cachePath"], f"{name}.popef"), "w") as file:
            file.write("contract fake: no executable")
