"""A compiled model on the pretended device: its weights, its optimiser's state, and what one call does."""

import time

import torch

from . import _updates
from ._device_tensor import TYPES, demoted
from ._errors import compiler_error
from .enums import OutputMode, ReductionType


class Executable:
    """The graph with everything that the device keeps. weights: name -> tensor; fixed: buffers that never change.

    ipus: of a real device, that it holds while it is attached.
    """

    def __init__(self, graph, options, optimizer, groups, ipus):
        self.graph = graph
        self.options = options
        self.optimizer = optimizer
        # parameter's name -> index of its optimiser's group
        self.groups = groups
        self.ipus = ipus
        self.attached = False
        self.states = {}
        self.weights = {}
        self.buffers = []
        self.fixed = {}
        self.times = []
        self.generator = torch.Generator().manual_seed(torch.initial_seed() % 2**63)
        if options.exists("random_seed"):
            self.generator.manual_seed(options.random_seed)

    def counts(self):
        """Return device iterations, accumulation and replicas."""
        options = self.options
        return options.device_iterations, options.Training.gradient_accumulation, options.replication_factor

    def upload(self, parameters, buffers):
        """Take weights from the host; integer buffers were constants from the start."""
        for name, value in parameters.items():
            self.weights[name] = demoted(value).clone().requires_grad_(value.is_floating_point())
        floats = {name: demoted(value) for name, value in buffers.items() if value.is_floating_point()}
        self.buffers = [{name: value.clone() for name, value in floats.items()} for _ in range(self.counts()[2])]
        for name, value in buffers.items():
            if not value.is_floating_point():
                self.fixed.setdefault(name, value.clone())

    def download(self):
        """Return weights and buffers; of the buffers those of the first replica."""
        return {**self.weights, **self.buffers[0]}

    def run(self, inputs):
        """Run every micro-batch and return the outputs. inputs: dim 0 by iteration, step, replica."""
        iterations, accumulation, replicas = self.counts()
        count = iterations * accumulation * replicas
        # copies: what forward writes into an input stays on the device
        inputs = [demoted(tensor).clone() for tensor in inputs]
        pieces = [[tensor] if count == 1 else tensor.chunk(count) for tensor in inputs]
        started = time.perf_counter()
        outputs = []
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.generator.get_state())
            for iteration in range(iterations):
                gradients = []
                for step in range(accumulation * replicas):
                    index = iteration * accumulation * replicas + step
                    results, found = self.micro_batch([piece[index] for piece in pieces], step % replicas)
                    outputs.append(results)
                    gradients.append(found)
                if self.graph.loss is not None:
                    self.update(gradients)
            self.generator.set_state(torch.get_rng_state())
        self.times = [(started, time.perf_counter())] * iterations
        return self.collected(outputs)

    def micro_batch(self, inputs, replica):
        """Run the graph once and return its outputs, and in training each weight's gradient by name."""
        graph = self.graph
        values = dict(zip(graph.inputs, inputs))
        values.update((place, self.weights[name]) for name, place in graph.parameters.items())
        for name, place in graph.buffers.items():
            kept = self.buffers[replica]
            values[place] = kept[name] if name in kept else self.fixed[name].clone()
        with torch.set_grad_enabled(graph.loss is not None):
            outputs = [on_host(output) for output in graph.replay(values)]
        return outputs, self.gradients(values) if graph.loss is not None else None

    def gradients(self, values):
        """Return the gradient of the loss for every weight that the optimiser has, by name."""
        loss = values[self.graph.loss]
        trained = {name: self.weights[name] for name in self.groups}
        if not loss.requires_grad:
            return {}
        seed = torch.full_like(loss, self.optimizer.scaling["loss_scaling"])
        found = torch.autograd.grad(loss, list(trained.values()), seed, allow_unused=True)
        return {name: gradient for name, gradient in zip(trained, found) if gradient is not None}

    @torch.no_grad()
    def update(self, gradients):
        """Join the gradients of all micro-batches of one update, and change the weights."""
        mean = self.options.Training.accumulation_and_replication_reduction_type == ReductionType.Mean
        scale = self.optimizer.scaling["loss_scaling"] * (len(gradients) if mean else 1)
        dtype = self.optimizer.attributes["accum_type"]
        joint = {}
        for name in self.groups:
            total = torch.zeros_like(self.weights[name], dtype=dtype)
            for found in gradients:
                total = total + found[name].to(dtype) if name in found else total
            joint[name] = total.float() / scale
        _updates.clip(list(joint.values()), self.optimizer.attributes.get("max_grad_norm", float("inf")))
        for name, index in self.groups.items():
            weight = self.weights[name].detach()
            master = weight.float()
            values = self.optimizer.groups[index]
            self.optimizer.update(
                master, joint[name], self.states.setdefault(name, {}), values, self.optimizer.attributes
            )
            weight.copy_(master)

    def collected(self, outputs):
        """Return what the output mode lets through, joined along dim 0; several 0-d ones become 1-d."""
        _, _, replicas = self.counts()
        mode, steps = self.options.output_mode, len(outputs) // replicas
        rows = [outputs[step * replicas : (step + 1) * replicas] for step in range(steps)]
        if mode == OutputMode.Final:
            rows = rows[-1:]
        elif mode == OutputMode.EveryN:
            period = self.options.output_return_period
            rows = rows[period - 1 :: period]
        elif mode == OutputMode.Sum:
            rows = [[[sum(same) for same in zip(*column)] for column in zip(*rows)]]
        flat = [results for row in rows for results in row]
        return [joined(same) for same in zip(*flat)]


def joined(pieces):
    """Join one output of several micro-batches."""
    if len(pieces) == 1:
        return pieces[0].clone()
    return torch.cat(pieces) if pieces[0].dim() else torch.stack(pieces)


def on_host(output):
    """Return an output in the types that leave the device."""
    output = output.detach()
    return output.int() if output.dtype == torch.int64 else output.float() if output.dtype == torch.float64 else output


def check_type(name, tensor):
    """Refuse a type that the device does not have."""
    if demoted(tensor).dtype not in TYPES:
        raise compiler_error(f"{name}: type {tensor.dtype} is not supported")
    if tensor.numel() == 0:
        raise compiler_error(f"Zero-sized tensors are unsupported (Got shape {list(tensor.shape)})")
