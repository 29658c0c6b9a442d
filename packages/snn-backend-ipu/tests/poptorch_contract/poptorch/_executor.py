"""The executor: what `trainingModel` and `inferenceModel` return."""

import copy
import types

import torch

from . import _contract, _optimizer_values, _wrapping, optim
from ._device_tensor import IpuTensor
from ._errors import Error
from ._executable import Executable
from ._extras import Extras, check_device, leave_in_cache
from ._options_parts import logger
from ._structure import mapped, parsed, tensors_of, validate
from ._tracing import traced
from .enums import ConnectionType, OutputMode
from .options import Options

VERSION = "3.4.0+contract.fake"
NOT_COMPILED = "Model has not been compiled or has been destroyed."


class PoplarExecutor(Extras):
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
        _contract.reach("exchange")
        device = executable.download()
        for name, value in [*self._model.named_parameters(), *self._model.named_buffers()]:
            if name in device:
                value.copy_(device[name])
        self._host_weights_version += 1

    def copyWeightsToDevice(self):
        """Copy the weights of the model to the device: what the device had is gone."""
        executable = self._compiled()
        self._dirty_host_weights = False
        _contract.reach("exchange")
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
        _contract.reach("exchange")
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
            _contract.reach("exchange")
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
        optimizer = self._optimizer if self._training else None
        graph, self._returned, groups = traced(self._model, bound, self._options, optimizer)
        graph.check(self._training)
        _contract.reach("compile")
        ipus = check_device(graph, self._options, self._training)
        self._executable = Executable(graph, self._options, self._device_optimizer, groups, ipus)
        self._executable.upload(*self._tensors())
        leave_in_cache(graph, self._options._Popart.options)
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
        _contract.acquire(self._executable, self._executable.ipus)
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
        _contract.release(self._executable)

    def destroy(self):
        """Give up the executable, and in training give the model its class back, which reads the device first."""
        if not self.isCompiled():
            return
        if self._training:
            self.copyWeightsToHostIfNeeded()
            self._optimizer.state_dict()
        _contract.release(self._executable)
        self._executable = None
        if self._training:
            _wrapping.unwrap(self._user_model)


def refuse_backward(*args, **kwargs):
    """Stand in for the `backward` of an output."""
    raise Error("backward() cannot be called explicitly on outputs of a PopTorch model.")
