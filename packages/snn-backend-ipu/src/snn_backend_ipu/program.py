"""A step compiled by poptorch: what core's trainer talks to."""

import contextlib
import copy
import logging
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from snn_backend_ipu import optimizers
from snn_backend_ipu.batches import Expected
from snn_backend_ipu.executables import FILES, description, write_manifest
from snn_backend_ipu.executors import EvaluationExecutor, TrainingExecutor, destroy_all
from snn_backend_ipu.layout import layout
from snn_backend_ipu.loading import Batch, TargetCheck, keeping_random_state, load
from snn_backend_ipu.modules import EvaluationModule, TrainingModule, begin_stages, freeze_parameters, halve
from snn_backend_ipu.nodes import Nodes, count_nodes
from snn_backend_ipu.optimizers import has_accumulated, saved_rate
from snn_backend_ipu.options import IpuOptions
from snn_backend_ipu.reports import report
from snn_backend_ipu.settings import make_settings
from snn_backend_ipu.sharing import part_names
from snn_backend_ipu.weights import Wide, plain_state, require_fit
from snn_core.backend import Program, Report
from snn_core.errors import ConfigError, DeviceError
from snn_core.optimizers import Optimizer
from snn_core.portable import readable_by, tagged
from snn_core.specs import BatchSpec, TrainSpec
from snn_core.step import Step

__all__ = ["IpuProgram"]

_FORMAT = "poptorch"
_log = logging.getLogger(__name__)


class IpuProgram(Program):
    """A step with weights of its own on IPUs, compiled at the first batch of training and at the first of evaluation.

    nodes: the size of the graph that poptorch compiles for training, counted on the host.
    """

    def __init__(
        self, step: Step, optimizer: Optimizer, batch: BatchSpec, train: TrainSpec, options: IpuOptions
    ) -> None:
        self._source, self._spec, self._batch, self._train, self._options = step, optimizer, batch, train, options
        shape = step.validate(batch, train.chunk)
        self._check = TargetCheck(step.loss, shape, batch.target.time_axis is not None)
        self._cuts = {training: layout(batch, train, options, training) for training in (True, False)}
        self._pristine = copy.deepcopy(step).cpu()
        self.nodes: Nodes = count_nodes(self._pristine, batch)
        self.summary = f"a training graph of {self.nodes.total:,} nodes ({_most(self.nodes.kinds)})"
        self._half = torch.float16 if train.precision == "fp16" else None
        self._expected = {training: Expected(batch, cut, training, self._half) for training, cut in self._cuts.items()}
        self._folder = None if options.executables is None else Path(options.executables)
        with keeping_random_state():
            # each executor keeps the settings that it was made with, and the loaders are given the same
            self._settings = {
                training: make_settings(options, train, self._cuts[training], training) for training in (True, False)
            }
            self._wide = Wide(plain_state(self._pristine.model))
            self._training = self._make_training()
            self._evaluation = self._make_evaluation()
        self._controls = {name: float(value) for name, value in step.controls.items()}
        self._rows: Dict[bool, Optional[Tensor]] = {}
        self._lr = optimizer.lr
        self._forwards = 0
        self._stale = False
        self._failed: Optional[DeviceError] = None
        self._lost = self._closed = False

    def _tree(self, training: bool) -> Step:
        """A module tree for one executor: the mode, half weights, stages, buffers for what is not trained, and no
        buffer of two names.
        """
        tree = copy.deepcopy(self._pristine).train(training)
        if self._half is not None:
            halve(tree.model)
        freeze_parameters(tree.model)
        begin_stages(tree.model, self._options.stages)
        part_names(tree)
        return tree

    def _make_training(self) -> TrainingExecutor:
        tree = self._tree(training=True)
        module = TrainingModule(tree, self._batch)
        optimizer = self._make_optimizer(tree.model)
        return TrainingExecutor(module, tree.model, self._settings[True], optimizer, self._file(True))

    def _make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return optimizers.build(self._spec, parameters, self._train, self._options)

    def _make_evaluation(self) -> EvaluationExecutor:
        tree = self._tree(training=False)
        module = EvaluationModule(tree, self._batch)
        return EvaluationExecutor(module, tree.model, self._settings[False], self._file(False))

    def _file(self, training: bool) -> Optional[Path]:
        return None if self._folder is None else self._folder / FILES[training]

    def loader(
        self, dataset: Any, order: Sequence[int], *, training: bool, start: int = 0, seed: int = 0
    ) -> Iterator[Batch]:
        self._require_open()
        if not training:
            self._evaluation.rewind()
        return load(
            dataset,
            order,
            settings=self._settings[training],
            options=self._options,
            spec=self._batch,
            cut=self._cuts[training],
            check=self._check,
            training=training,
            dtype=self._half,
            start=start,
            seed=seed,
        )

    def batches(self, samples: int, *, training: bool) -> int:
        self._require_open()
        size = self._cuts[training].samples
        return samples // size if training else -(-samples // size)

    def train_step(self, batch: Batch) -> Report:
        self._require_open()
        batch = self._expected[True].require(batch)
        cut = self._cuts[True]
        self._stale = True
        try:
            with self._on_device():
                self._take_turns(training=True)
                _, rows = self._training.run(self._inputs(tuple(batch), training=True))
        except DeviceError as exc:
            # after some of the call's steps the weights are nobody's: of no step that the trainer knows
            self._failed = exc if cut.iterations > 1 else None
            raise
        self._forwards += cut.iterations * cut.accumulation
        return report(rows, self._source, self.nodes.classified, cut.iterations)

    def eval_step(self, batch: Batch) -> Report:
        self._require_open()
        batch = self._expected[False].require(batch)
        # the loader's memory may be written over while the device runs
        samples = int(batch[2].sum())
        with self._on_device():
            if self._stale:
                self._evaluation.load(self._training.weights())
                self._stale = False
            self._take_turns(training=False)
            rows, output = self._evaluation.run(self._inputs(tuple(batch), training=False))
        output = output[:samples].transpose(0, 1).float()
        return report(rows, self._source, self.nodes.classified, 0, output)

    @contextlib.contextmanager
    def _on_device(self) -> Iterator[None]:
        """The process's random numbers go on as before; a failure of the device is remembered for `close`."""
        try:
            with keeping_random_state():
                yield
        except DeviceError:
            self._lost = True
            raise

    def _take_turns(self, training: bool) -> None:
        """On shared IPUs, make the other executor give its own back."""
        if self._options.offline is not None:
            raise ConfigError(
                "this program was compiled offline and has no IPU to run on; write it to a folder with "
                "IpuProgram.export(folder), and load that with executables=folder where there is one"
            )
        if self._options.share_ipus:
            (self._evaluation if training else self._training).release()

    def _inputs(self, tensors: Tuple[Tensor, ...], training: bool) -> Tuple[Tensor, ...]:
        """The tensors with the controls, each as long as the combined batch: poptorch cuts every input."""
        if not self._controls:
            return tensors
        if self._rows.get(training) is None:
            values = torch.tensor(list(self._controls.values()), dtype=torch.float32)
            self._rows[training] = values.repeat(self._cuts[training].combined, 1)
        rows = self._rows[training]
        assert rows is not None
        return (*tensors, rows)

    def set_lr(self, lr: float) -> None:
        self._require_open()
        self._lr = lr
        self._training.set_rate(lr)

    def set_control(self, name: str, value: float) -> None:
        self._require_open()
        if name not in self._controls:
            raise KeyError(f"no control {name!r}; the terms have {sorted(self._controls)}")
        self._controls[name] = float(value)
        self._rows.clear()

    def state_dict(self) -> Dict[str, Any]:
        self._require_open()
        with keeping_random_state():
            state = {
                "model": self._weights(),
                "optimizer": {"name": self._spec.name, "state": self._training.optimizer_state()},
                "rng": {"training": self._training.random_state()},
                "controls": dict(self._controls),
            }
        return tagged(state, _FORMAT)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._require_open()
        ours = readable_by(_FORMAT, state)
        weights = require_fit(state.get("model"), self._wide.follow({}))
        with keeping_random_state():
            self._load_optimizer(state["optimizer"] if ours else None)
            self._wide.replace(weights)
            self._training.load(weights)
            self._training.restore_random(state["rng"].get("training") if ours else None)
        self._forwards, self._stale, self._failed, self._lost = 0, True, None, False
        for name, value in state.get("controls", {}).items():
            self.set_control(name, value)

    def _load_optimizer(self, saved: Optional[Mapping[str, Any]]) -> None:
        """Go on from a saved optimiser, or with None from a new one."""
        if saved is not None:
            self._lr = saved_rate(saved, self._spec.name)
        if self._training.compiled:
            self._take_turns(training=True)
        if saved is not None and has_accumulated(saved["state"]):
            self._training.replace_optimizer(self._make_optimizer(self._training.model), saved["state"])
        elif self._training.compiled:
            # what the device has accumulated can be replaced, not taken away: only a new executor has none
            self._training.destroy()
            self._training = self._make_training()
        self._training.set_rate(self._lr)

    def _weights(self) -> Dict[str, Tensor]:
        """The model's tensors as the user's model has them."""
        if self._failed is not None:
            raise self._failed
        weights = self._wide.follow(self._training.weights())
        # an integer on the device is a constant, so the host counts for batch norm
        counted = self.nodes.counted.items()
        return {**weights, **{name: weights[name] + self._forwards * count for name, count in counted}}

    def sync(self) -> None:
        self._require_open()
        source = self._source.source
        if source is not None:
            with keeping_random_state():
                weights = self._weights()
            source.load_state_dict(weights)

    def export(self, folder: Union[str, Path]) -> None:
        """Compile training and evaluation into files in `folder`, which the option `executables` loads.

        For the same poptorch alone, and a run with the same model, loss, terms, shapes and options, which are written
        beside them; weights, learning rate and seed are that run's own. With the option `offline` no IPU is needed.
        Raises Unsupported where it fails.
        """
        self._require_open()
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with keeping_random_state():
            for training, executor in ((True, self._training), (False, self._evaluation)):
                executor.export(folder / FILES[training], self._inputs(self._expected[training].example(), training))
        write_manifest(folder, self._described())

    def _described(self) -> Dict[str, Any]:
        model = self._pristine.model
        return description(model, self.nodes, self._batch, self._train, self._spec, self._options, self._cuts)

    def close(self) -> None:
        """Give the device back. Raises DeviceError where it fails at that, unless it has already failed in a step."""
        self._close(tells=not self._lost)

    def __exit__(self, kind: object = None, *exc: object) -> None:
        # the error that the block is left by is the one to tell, and a lost device fails again when it is given back
        self._close(tells=kind is None and not self._lost)

    def _close(self, tells: bool) -> None:
        if self._closed:
            return
        self._closed = True
        for error in destroy_all((self._training, self._evaluation)):
            if tells:
                raise error
            _log.warning("the program could not be closed cleanly: %s", error)

    def _require_open(self) -> None:
        if self._closed:
            raise RuntimeError("this program is closed; compile a new one")


def _most(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind.partition('::')[2]}" for kind, count in list(kinds.items())[:8])
