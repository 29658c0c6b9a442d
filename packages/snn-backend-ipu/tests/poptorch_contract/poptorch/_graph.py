"""A traced model: what was recorded, checked as the compiler checks it, and replayed for each micro-batch."""

from ._device_tensor import aten, demoted
from ._errors import compiler_error

POOLS = (aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default)


class Graph:
    """The nodes of a trace. inputs, parameters, buffers, outputs: the places of each."""

    def __init__(self, recorder, inputs, parameters, buffers, outputs):
        self.nodes = recorder.nodes
        self.constants = recorder.constants
        self.inputs = inputs
        self.parameters = parameters
        self.buffers = buffers
        self.outputs = outputs
        self.loss = None

    def check(self, training):
        """Refuse what the compiler refuses. In training there must be exactly one final loss."""
        read = {index for node in self.nodes for index in node.reads} | set(self.outputs)
        for node in self.nodes:
            if node.function in POOLS and node.results[1] in read:
                raise compiler_error("max pooling with return_indices=True is not supported")
        if training:
            self.loss = self.final_loss()

    def check_order(self, begun):
        """Refuse an operation of a pipeline that reads what a later stage makes. begun: (nodes before it, stage)."""
        # what is made of constants alone is one, and of no stage
        constants, made = set(self.constants), {}
        stage, begun = 0, list(begun)
        for number, node in enumerate(self.nodes):
            while begun and begun[0][0] <= number:
                _, stage = begun.pop(0)
            latest = max((made[place] for place in node.reads if place in made), default=stage)
            if latest > stage:
                raise compiler_error(
                    f"{node.function} on pipeline stage {stage} consumes a tensor that is produced on stage {latest}: "
                    "forward layers must be sharded with increasing IPU index"
                )
            results = [place for place in node.results if place is not None]
            if constants.issuperset(node.reads):
                constants.update(results)
            else:
                made.update((place, stage) for place in results)

    def final_loss(self):
        """Return the place of the loss that no other loss was made of."""
        losses = [node for node in self.nodes if node.is_loss]
        if not losses:
            raise compiler_error("Couldn't find a loss in graph!")
        within = set()
        for node in reversed(self.nodes):
            if node.is_loss or within.intersection(node.results):
                within.update(node.reads)
        final = [node for node in losses if not within.intersection(node.results)]
        if len(final) != 1:
            raise compiler_error(
                "Multiple independent losses found in graph. Graph must have one final loss. "
                "Wrap final graph loss in poptorch.identity_loss."
            )
        return final[0].results[0]

    def replay(self, values):
        """Run every node once. values: place -> tensor, for inputs, parameters and buffers; it gets the results."""
        for index, constant in self.constants.items():
            # a copy: what the graph writes into it is gone at the next run
            values[index] = constant.clone()
        for node in self.nodes:
            for place, result in zip(node.results, node.run(values)):
                if place is not None:
                    values[place] = demoted(result)
        return [values[place] for place in self.outputs]
