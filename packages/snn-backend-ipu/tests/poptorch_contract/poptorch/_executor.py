"""The executor: what `trainingModel` and `inferenceModel` return."""

import copy
import hashlib
import os
import pickle
import types
import warnings

import torch

from . import _contract, _optimizer_values, _wrapping, optim
from ._device_tensor import IpuTensor, Recorder
from ._errors import Error, compiler_error
from ._executable import Executable, check_type
from ._graph import Graph
from ._structure import check_returned, mapped, parsed, tensors_of, validate
from .enums import ConnectionType, OutputMode
from .ops import Block
from .options import Options, logger

VERSION = "3.4.0+contract.fake"
NOT_COMPILED = "Model has not been compiled or has been destroyed."


class PoplarExecutor:
    """A wrapped model."""

    def __init__(self, model, options, training, poptorch_version, optimizer=None, user_model=None):
        if options is None:
            options = Options()
        if not isinstance(options, Options):
            raise Error(f"Invalid type: 'options' is of type {type(options)} (Expected poptorch.Options)")
        options._freeze()
        self._options = options.clone()
        self._model = model
        self._user_model = user_model or model
        self._training = training
        self._poptorch_version = poptorch_version
        self._executable = None
        self._device_optimizer = None
        self._host_weights_version = 0
        self._dirty_host_weights = False
        self._compiled_inputs = None
        self._rng_state = None
        if training:
            self._prepare_training(optimizer)
        else:
            self._prepare_inference()
        self._options._freeze()
        if training:
            _wrapping.wrap(self, self._user_model)

    def _prepare_training(self, optimizer):
        if self._options.defaultOutputMode():
            self._options.outputMode(OutputMode.Final)
        self._optimizer = optimizer or optim.SGD(self._user_model.parameters(), lr=0.01)
        self.setOptimizer(self._optimizer)

    def _prepare_inference(self):
        if self._options.defaultOutputMode():
            self._options.outputMode(OutputMode.All)
        if self._options.Training.gradient_accumulation != 1:
            raise Error(
                "You must set poptorch.Options().Training.gradientAccumulation to 1 or leave it as its default value "
                "(1) when running a poptorch.inferenceModel()."
            )
        self._optimizer = None

    def __getattr__(self, name):
        if name in ("_user_model", "_model"):
            raise AttributeError(name)
        return getattr(self._user_model, name)

    @property
    def model(self):
        """The wrapped model."""
        return self._user_model

    @property
    def options(self):
        """The options, frozen."""
        return self._options

    # weights

    def _tensors(self):
        parameters = {name: _wrapping.plain(value.detach()) for name, value in self._model.named_parameters()}
        return parameters, {name: _wrapping.plain(value) for name, value in self._model.named_buffers()}

    def _compiled(self):
        if self._executable is None:
            raise Error(NOT_COMPILED)
        return self._executable

    def copyWeightsToHostIfNeeded(self):
        """Copy the weights to the host when the device changed them; say whether it had."""
        if self._dirty_host_weights:
            self.copyWeightsToHost()
            return True
        return False

    @torch.no_grad()
    def copyWeightsToHost(self):
        """Copy the weights to the model."""
        executable = self._compiled()
        self._dirty_host_weights = False
        device = executable.download()
        for name, value in [*self._model.named_parameters(), *self._model.named_buffers()]:
            if name in device:
                value.copy_(device[name])
        self._host_weights_version += 1

    def copyWeightsToDevice(self):
        """Copy the weights of the model to the device: what the device had is gone."""
        executable = self._compiled()
        self._dirty_host_weights = False
        executable.upload(*self._tensors())

    def load_state_dict(self, state_dict, strict=True):
        """Load the weights into the model and onto the device."""
        out = self._user_model.load_state_dict(state_dict, strict)
        if self.isAttachedToDevice():
            self.copyWeightsToDevice()
        return out

    # the optimiser

    def setOptimizer(self, optimizer):
        """Give the device another optimiser, or the same one with other values."""
        described = _optimizer_values.Device(optimizer, self._options)
        if self.isCompiled() and optimizer is not self._optimizer:
            self._read_optimizer_state()
            if isinstance(self._optimizer, optim.Optimizer):
                self._optimizer.state_dict = self._optimizer.get_state_dict
            if isinstance(optimizer, optim.Optimizer):
                optimizer.ipu_state_is_dirty = True
        if isinstance(optimizer, optim.Optimizer):
            optimizer.state_dict = types.MethodType(PoplarExecutor._optimizer_state, self)
        self._optimizer = optimizer
        self._device_optimizer = described
        if self.isAttachedToDevice():
            self._update_optimizer()
            self._write_optimizer_state()

    def _update_optimizer(self):
        self._executable.optimizer.replaceable_by(self._device_optimizer)
        self._executable.optimizer = self._device_optimizer

    def _optimizer_state(self):
        self._read_optimizer_state()
        return self._optimizer.get_state_dict()

    def _read_optimizer_state(self):
        optimizer = self._optimizer
        if not isinstance(optimizer, optim.Optimizer) or not optimizer.host_state_is_dirty:
            return
        executable = self._compiled()
        device = {
            "ipu_state": {
                f"{kind}___{name}": value.clone()
                for name, state in executable.states.items()
                for kind, value in state.items()
            },
            "ipu_param": {"loss_scaling": torch.tensor(executable.optimizer.scaling["loss_scaling"])},
        }
        optimizer.set_state_dict({**device, **torch.optim.Optimizer.state_dict(optimizer)})
        optimizer.ipu_state_is_dirty = False

    def _write_optimizer_state(self):
        optimizer = self._optimizer
        if not isinstance(optimizer, optim.Optimizer) or not optimizer.ipu_state_is_dirty:
            return
        if optimizer.has_state():
            self.copyWeightsToHostIfNeeded()
            states = {}
            for key, value in optimizer._state_dict["ipu_state"].items():
                kind, name = key.split("___", 1)
                states.setdefault(name, {})[kind] = value.clone()
            self._executable.states = states
        optimizer.ipu_state_is_dirty = False

    # compiling

    def compile(self, *args, **kwargs):
        """Trace the model and compile it, unless it is compiled."""
        if self.isCompiled():
            logger.warning("Call to compile() ignored: the executable is already compiled")
            return
        self._compile(parsed(self._model, args, kwargs))

    def _compile(self, inputs):
        self._compiled_inputs = mapped(dict(inputs.arguments), torch.Tensor.clone)
        for tensor in tensors_of(dict(inputs.arguments)):
            if tensor.requires_grad:
                logger.warning("Input tensor has requires_grad=True set. This tensor will be detached.")
        bound = copy.copy(inputs)
        bound.arguments = mapped(dict(inputs.arguments), lambda tensor: self._narrowed(tensor.detach()))
        graph, stages = self._traced(bound)
        graph.check(self._training)
        _contract.reach("compile")
        self._check_device(stages)
        self._executable = Executable(graph, self._options, self._device_optimizer, self._trained)
        self._executable.upload(*self._tensors())
        self._cache(graph)
        if self._options.connection_type != ConnectionType.Never:
            self._attach()

    def _narrowed(self, tensor):
        options = self._options
        counts = options.device_iterations, options.replication_factor, options.Training.gradient_accumulation
        product = counts[0] * counts[1] * counts[2]
        size = tensor.shape[0] if tensor.dim() else 1
        assert size % product == 0, (
            f"Invalid batch dimension: In the input {tensor.shape}, the batch dimension ({size}) must be a multiple of "
            f"Options.deviceIterations({counts[0]}) * Options.replicationFactor({counts[1]}) * "
            f"Options.Training.gradientAccumulation({counts[2]}) = {product}"
        )
        return tensor.narrow(0, 0, size // product) if tensor.dim() else tensor

    def _traced(self, bound):
        """Run forward once, on a model whose parameters and buffers are the device's, and put the host's back.

        Here, as in the real one, a failure before `cpu_aliases` is known is hidden by the UnboundLocalError of its own
        clean-up.
        """
        model, recorder = self._model, Recorder(self._training)
        manager = self._options._execution_strategy._stages_manager
        manager.reset()
        try:
            owners = [(module, name) for module in model.modules() for name in module._parameters]
            cpu_params = [(module, name, module._parameters[name]) for module, name in owners]
            owners = [(module, name) for module in model.modules() for name in module._buffers]
            cpu_buffers = [(module, name, module._buffers[name]) for module, name in owners]
            names = {id(value): name for name, value in [*model.named_parameters(), *model.named_buffers()]}
            moved = self._moved(recorder, cpu_params, cpu_buffers, names)
            cpu_aliases = len(cpu_params) + len(cpu_buffers) - len(moved)
            self._trained = self._groups(names)
            inputs = mapped(dict(bound.arguments), recorder.leaf)
            bound.arguments = inputs
            buffers = [(module, name, module._buffers.get(name)) for module, name, _ in cpu_buffers]
            Block._stages_manager = manager
            _contract.traces.append(model)
            with recorder.tracing():
                _contract.reach("trace")
                result = model(*bound.args, **bound.kwargs)
                check_returned(result)
            changed = [name for module, name, value in buffers if module._buffers.get(name) is not value]
            written = any(
                value is not None and value.is_floating_point() and value._value._version for _, _, value in buffers
            )
        finally:
            Block._stages_manager = None
            for module, name, value in cpu_params:
                module._parameters[name] = value
            logger.debug("%d parameters have more than one name", cpu_aliases)
            for module, name, value in cpu_buffers:
                module._buffers[name] = value
        if changed:
            raise Error(
                f"Buffer {changed[0]} is reassigned within the model when calling the forward method. This is not "
                f"supported. Consider using self.{changed[0]}.copy_(src) to copy data from a source tensor."
            )
        if written and self._options.replication_factor > 1 and self._options.broadcast_buffers:
            raise compiler_error(
                "PopTorch does not support broadcasting buffers. If your model is able to tolerate buffers becoming out "
                "of sync between replicas, use poptorch.Options.broadcastBuffers(False)."
            )
        places = {names[key]: tensor._index for key, tensor in moved.items()}
        parameters = {name: places[name] for name, _ in model.named_parameters()}
        self._returned = result
        outputs = [tensor._index for tensor in tensors_of(result) if on_ipu(tensor)]
        graph_inputs = [tensor._index for tensor in tensors_of(inputs)]
        rest = {name: place for name, place in places.items() if name not in parameters}
        return Graph(recorder, graph_inputs, parameters, rest, outputs), manager.stages

    def _moved(self, recorder, parameters, buffers, names):
        moved = {}
        _contract.reach("move")
        for kind, owned in (("_parameters", parameters), ("_buffers", buffers)):
            for module, name, value in owned:
                if value is None:
                    continue
                if id(value) not in moved:
                    check_type(names[id(value)], value)
                    host = _wrapping.plain(value.detach()).clone()
                    host = host.float() if host.dtype == torch.float64 else host
                    moved[id(value)] = recorder.leaf(host, value.requires_grad)
                    moved[id(value)]._is_param = kind == "_parameters"
                getattr(module, kind)[name] = moved[id(value)]
        return moved

    def _groups(self, names):
        """Return the group of each parameter by its name; the optimiser must have been made of this model's own."""
        if not self._training:
            return {}
        groups = enumerate(self._optimizer.param_groups)
        return {names[id(value)]: index for index, group in groups for value in group["params"] if value.requires_grad}

    def _check_device(self, stages):
        options, count = self._options, len(stages)
        if count > 1 and options._execution_strategy.pipelined:
            needed = 2 * count - 1 if self._training else count
            depth = options.Training.gradient_accumulation if self._training else options.device_iterations
            what = "gradient accumulation factor" if self._training else "batchesPerStep"
            if depth < needed:
                raise compiler_error(
                    f"For pipelining, depth ({what}) must equal at least the number of pipeline stages ({needed})"
                )
        period = options.output_return_period
        if (options.device_iterations * options.Training.gradient_accumulation) % period:
            raise compiler_error(f"The number of batches of a call must be a multiple of the return period ({period})")
        ipus = max(stages.values(), default=0) + 1
        _contract.acquire(options, ipus * options.replication_factor)

    def _cache(self, graph):
        """Leave a file in the folder of the executable cache, named by what was compiled."""
        popart = self._options._Popart.options
        if popart.get("enableEngineCaching"):
            text = repr([(str(node.function), node.flat_text()) for node in graph.nodes])
            os.makedirs(popart["cachePath"], exist_ok=True)
            name = hashlib.sha256(text.encode()).hexdigest()[:16]
            with open(os.path.join(popart["cachePath"], f"{name}.popef"), "w") as file:
                file.write("contract fake: no executable")

    # running

    def __call__(self, *args, **kwargs):
        assert self._options.connection_type != ConnectionType.Never, (
            "Trying to run a model on an offline device (ConnectionType.Never): use model.compile(inputs) instead of "
            "model(inputs)"
        )
        inputs = parsed(self._model, args, kwargs)
        if not self.isCompiled():
            self._compile(inputs)
        if not self.isAttachedToDevice():
            self.attachToDevice()
        if not self._training:
            self._follow_training()
        for name, compiled in self._compiled_inputs.items():
            validate(name, compiled, inputs.arguments[name])
        self._write_optimizer_state()
        _contract.reach("execute")
        outputs = self._executable.run([tensor.detach() for tensor in tensors_of(dict(inputs.arguments))])
        self._rng_state = None
        if self._training:
            self._dirty_host_weights = True
            if isinstance(self._optimizer, optim.Optimizer):
                self._optimizer.host_state_is_dirty = True
        for output in outputs:
            output.backward = refuse_backward
        left = iter(outputs)
        return mapped(self._returned, lambda tensor: next(left) if isinstance(tensor, IpuTensor) else tensor)

    def _follow_training(self):
        """Take the weights of the same model's training executor, when it has newer ones."""
        copy_if_needed = getattr(self._user_model, "copyWeightsToHostIfNeeded", None)
        if callable(copy_if_needed):
            copy_if_needed()
            version = self._user_model._host_weights_version
            if self._host_weights_version != version:
                self.copyWeightsToDevice()
                self._host_weights_version = version

    def isCompiled(self):
        """Say whether there is an executable."""
        return self._executable is not None

    def isAttachedToDevice(self):
        """Say whether the device is attached."""
        return self._executable is not None and self._executable.attached

    def attachToDevice(self):
        """Attach a device and upload the weights."""
        self._compiled()
        assert self._options.connection_type != ConnectionType.Never, "Trying to attach to an offline device"
        if self._executable.attached:
            raise Error("Device is already attached")
        self._attach()

    def _attach(self):
        _contract.reach("attach")
        self._executable.attached = True
        self.copyWeightsToDevice()
        if self._training:
            self._update_optimizer()
            if isinstance(self._optimizer, optim.Optimizer) and self._optimizer.has_state():
                self._optimizer.ipu_state_is_dirty = True
            self._write_optimizer_state()

    def detachFromDevice(self):
        """Give the device back."""
        self._compiled()
        if self._training:
            self.copyWeightsToHostIfNeeded()
        if not self._executable.attached:
            raise Error("Device is not attached")
        self._executable.attached = False

    def destroy(self):
        """Give up the executable, and in training give the model its class back."""
        if not self.isCompiled():
            return
        if self._training:
            self.copyWeightsToHostIfNeeded()
            self._optimizer.state_dict()
        self._executable = None
        if self._training:
            _wrapping.unwrap(self._user_model)

    # files, random numbers, times

    def save(self, filename, export_model=True, save_rng_state=True):
        """Write the compiled model to a file; with export_model the model too, for `poptorch.load`."""
        self._compiled()
        _contract.reach("save")
        content = {"version": self._poptorch_version, "inputs": self._compiled_inputs, "training": None}
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
        """Take the executable of a file; it must be of the same version. The weights are the model's."""
        _contract.reach("load")
        content = read(filename, self._poptorch_version)
        inputs = content["inputs"]
        positional = parsed(self._model, (), inputs)
        self._compile(positional)
        if content["rng_state"] is not None:
            self.rng_state = content["rng_state"]

    @property
    def rng_state(self):
        """The random numbers' seed and state: a list of integers."""
        generator = self._compiled().generator
        return [generator.initial_seed(), *generator.get_state().tolist()]

    @rng_state.setter
    def rng_state(self, state):
        generator = self._compiled().generator
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


def on_ipu(tensor):
    """Say whether a returned tensor was traced, and warn where it was not."""
    if isinstance(tensor, IpuTensor):
        return True
    warnings.warn(f"Output expected to be on the IPU but is on {tensor.device.type}", stacklevel=2)
    return False


def refuse_backward(*args, **kwargs):
    """Stand in for the `backward` of an output."""
    raise Error("backward() cannot be called explicitly on outputs of a PopTorch model.")


def read(filename, version):
    """Return what `save` wrote."""
    with open(filename, "rb") as file:
        content = pickle.load(file)
    if content["version"] != version:
        raise Error(f"Invalid file {filename}: it is of version {content['version']}, this is {version}")
    return content
