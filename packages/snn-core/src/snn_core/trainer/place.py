"""Where a run lies: the folder that it gets or goes on in, and what was saved there. The first process decides."""

import contextlib
from pathlib import Path
from typing import Any, Dict, Iterator, NamedTuple, Optional, Union

from snn_core.distributed import Processes
from snn_core.errors import ConfigError
from snn_core.trainer.checkpointing import checkpoint_path, read_checkpoint
from snn_core.trainer.folder import PathLike, RunFolder
from snn_core.trainer.run import Plan
from snn_core.trainer.settings import Settings

__all__ = ["Place", "Resume", "opened"]

Resume = Union[PathLike, bool, None]


class Place(NamedTuple):
    """path: the run's folder, or None.   folder: what writes there, None in all processes but the first.   saved: the
    state to go on from, or None.
    """

    path: Optional[Path]
    folder: Optional[RunFolder]
    saved: Optional[Dict[str, Any]]


@contextlib.contextmanager
def opened(plan: Plan, resume: Resume, processes: Processes) -> Iterator[Place]:
    """Open the run's folder in the first process, and hand what was saved there to all.

    resume: as in `Trainer.fit`. A folder in which nothing was saved is removed when the block fails. Raises what
    `RunFolder` and `read_checkpoint` raise, ConfigError for a run that has no name to find it by.
    """
    folder, saved = None, None
    try:
        with processes.together():
            if processes.first:
                folder = _folder(plan.settings, resume)
                saved = None if folder is None else _saved(folder, resume, plan)
        path, saved = processes.broadcast((None if folder is None else folder.path, saved))
        yield Place(path, folder, saved)
    except BaseException:
        if folder is not None and resume in (None, True, False):
            folder.discard()
        raise
    finally:
        if folder is not None:
            folder.close()


def _folder(settings: Settings, resume: Resume) -> Optional[RunFolder]:
    if resume is True:
        path = _named(settings)
        return RunFolder(path) if path.is_dir() else RunFolder.create(path.parent, path.name)
    if resume:
        return RunFolder.open(resume)
    return None if settings.folder is None else RunFolder.create(settings.folder, settings.name)


def _saved(folder: RunFolder, resume: Resume, plan: Plan) -> Optional[Dict[str, Any]]:
    # one that was killed before its first checkpoint begins anew
    begun = resume is True and not checkpoint_path(folder.path, "last").exists()
    return None if not resume or begun else read_checkpoint(folder.path, plan)


def _named(settings: Settings) -> Path:
    if settings.folder is None or settings.name is None:
        raise ConfigError(
            f"resume=True goes on with the run of this name, and folder is {settings.folder!r}, name "
            f"{settings.name!r}; set both, such as folder='runs', name='first', or give resume the folder of a run"
        )
    return Path(settings.folder) / settings.name
