"""Execution strategies, and the stages that blocks get while a model is traced."""

from .enums import AutoStage


class Stage:
    """One or more blocks that run together on one IPU."""

    def __init__(self, *block_ids):
        assert all(isinstance(block, str) for block in block_ids), f"Block IDs are supposed to be strings: {block_ids}"
        self._blocks = block_ids
        self._stage_id = -1
        self._ipu = None

    @property
    def blocks(self):
        """The blocks of this stage."""
        return self._blocks

    def ipu(self, ipu):
        """Set the IPU that the stage runs on."""
        assert isinstance(ipu, int)
        self._ipu = ipu
        return self


class StagesManager:
    """Gives each block met during a trace its stage and its IPU."""

    def __init__(self, block_map, auto_stage):
        self._known = bool(block_map)
        self._block_map = dict(block_map)
        self._auto_stage = auto_stage
        self.reset()

    def reset(self):
        """Forget what the last trace met."""
        self._next_auto_id = 0
        self.stages = {}
        # (nodes that the trace had, stage) at each block's begin
        self.begun = []

    def nextAutoId(self):
        """Return the id of a block that has none."""
        self._next_auto_id += 1
        return str(self._next_auto_id - 1)

    def resetAutoId(self):
        """Count blocks without an id from 0 again."""
        self._next_auto_id = 0

    def beginStage(self, user_id, ipu_id, nodes):
        """Enter a block, when the trace has so many nodes."""
        user_id = user_id or self.nextAutoId()
        stage = self._stage(user_id, ipu_id)
        ipu = stage._ipu if stage._ipu is not None else ipu_id
        self.stages[stage._stage_id] = stage._stage_id if ipu is None else ipu
        self.begun.append((nodes, stage._stage_id))

    def _stage(self, block_id, ipu_id):
        if self._known:
            assert block_id in self._block_map, (
                f"Unknown Block '{block_id}' list of expected Blocks: {list(self._block_map)}"
            )
        elif block_id not in self._block_map:
            stage = Stage(block_id)
            if self._auto_stage == AutoStage.SameAsIpu:
                assert ipu_id is not None, (
                    f"poptorch.AutoStage.SameAsIpu was selected but no IPU was specified for block {block_id}"
                )
                stage._stage_id = ipu_id
            else:
                stage._stage_id = len(self._block_map) + 1
            self._block_map[block_id] = stage
        return self._block_map[block_id]


class _IExecutionStrategy:
    pipelined = False

    def __init__(self, manager):
        self._stages_manager = manager
        self._block_map = dict(manager._block_map)

    def stage(self, block_id):
        """Return the stage of a block."""
        assert block_id in self._block_map, f"Unknown block {block_id}"
        return self._block_map[block_id]


class PipelinedExecution(_IExecutionStrategy):
    """Stages run at the same time, each on another micro-batch."""

    pipelined = True

    def __init__(self, *args):
        blocks = {}
        auto_stage = AutoStage.SameAsIpu
        if len(args) == 1 and isinstance(args[0], AutoStage):
            auto_stage = args[0]
        else:
            for index, arg in enumerate(args):
                if not isinstance(arg, Stage):
                    arg = Stage(arg) if isinstance(arg, str) else Stage(*arg)
                arg._stage_id = index
                for block in arg.blocks:
                    assert block not in blocks, f"{block} associated with more than one stage"
                    blocks[block] = arg
        super().__init__(StagesManager(blocks, auto_stage))


class ShardedExecution(PipelinedExecution):
    """Stages run one after the other."""

    pipelined = False
