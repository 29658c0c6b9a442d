"""Checkpoints: one safetensors file holds a nested state, its tensors as they are and all else as JSON in the header.

Reading one executes no code. Writing replaces the file in one step of the file system: a process killed at any moment
leaves the old file or the new one, whole. A digest finds bits that changed on the disk. Other tools can read the
tensors: `safetensors.torch.load_file(path)`.
"""

import contextlib
import errno
import glob
import hashlib
import json
import math
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple, Union

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from snn_core.errors import CheckpointError, RunFolderError

__all__ = ["FORMAT", "VERSION", "load", "pack", "save", "unpack"]

FORMAT = "snn-checkpoint"
VERSION = 1
"""The version of the header's content. It grows when an older snn-core could misread what a newer one wrote."""

# One entry: with several, safetensors would write them in another order each time, and equal states give unequal files.
_ENTRY = "snn"
_SCALARS = (type(None), bool, int, str)
_DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)
_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space or choose a run folder on another disk",
    errno.EDQUOT: "the disk quota is used up: free some space or choose a run folder on another disk",
    errno.EFBIG: "the file is larger than this process may write: raise the limit (ulimit -f)",
    errno.EACCES: "make the folder writable or choose another run folder",
    errno.EPERM: "make the folder writable or choose another run folder",
    errno.EROFS: "the disk is mounted read-only: choose another run folder",
    errno.ENOENT: "the folder must exist, and only one process may save to a file: give each run a folder of its own",
}
_OTHER = "use another checkpoint of the run, or train again"

PathLike = Union[str, "os.PathLike[str]"]


def save(path: PathLike, state: Any, meta: Optional[Mapping[str, Any]] = None) -> None:
    """Write `state` and `meta` to `path`, replacing what is there in one step once the new file is safe on the disk.

    state: tensors, None, bool, int, float and str in any nesting of mappings, lists and tuples, as in `pack`. meta: the
    same without tensors. Half-written files of killed processes are removed. Raises CheckpointError for other content
    and RunFolderError where the file cannot be written; the file that was there stays as it was.
    """
    tensors, tree = pack(state)
    content = {"tree": tree, "meta": _tree(dict(meta or {}), "meta", None)}
    header = {"format": FORMAT, "version": VERSION, "digest": _digest(tensors, content), **content}
    _replace(Path(path), safetensors.torch.save(tensors, {_ENTRY: _json(header)}))


def load(path: PathLike) -> Tuple[Any, Dict[str, Any]]:
    """Return (state, meta) of a file that `save` wrote; tensors on the CPU, bit for bit, mappings as dict.

    Executes no code from the file. Raises CheckpointError for a missing, empty, truncated, damaged or foreign file, and
    for a format newer than this snn-core reads.
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise CheckpointError(f"the checkpoint {path} is empty (0 bytes); {_OTHER}")
        with safetensors.safe_open(str(path), framework="pt") as file:
            header = _header(path, (file.metadata() or {}).get(_ENTRY))
            # Copies, or the tensors would be the mapped file's pages.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as exc:
        raise CheckpointError(f"there is no checkpoint {path}; check the path, or train first") from exc
    except OSError as exc:
        raise CheckpointError(
            f"the checkpoint {path} cannot be read: {exc.strerror or exc}; check the path and its rights"
        ) from exc
    except safetensors.SafetensorError as exc:
        raise CheckpointError(f"{path} is truncated or no checkpoint (safetensors: {exc}); {_OTHER}") from exc
    try:
        content = {"tree": header["tree"], "meta": header["meta"]}
        if _digest(tensors, content) != header["digest"]:
            raise CheckpointError(f"the checkpoint {path} is damaged: its content does not match its digest; {_OTHER}")
        return unpack(tensors, content["tree"]), _decode(content["meta"], {})
    except (KeyError, RecursionError) as exc:
        raise CheckpointError(f"the checkpoint {path} is damaged: {exc!r} in its header; {_OTHER}") from exc


def pack(state: Any) -> Tuple[Dict[str, Tensor], Any]:
    """Split a nested state into (tensors by flat name, a tree of JSON values that says where each belongs).

    Leaves: tensors, None, bool, int, float (NaN and infinities too) and str, of exactly these types. Nodes: list, tuple
    and mappings with such keys, which come back as dict, in order. Tensors are detached and on the CPU; one that occurs
    twice is stored once and comes back as one; other views of one memory become tensors of their own. Raises
    CheckpointError, naming the place, for anything else.
    """
    found = _Tensors()
    tree = _tree(state, "", found)
    return found.by_name, tree


def unpack(tensors: Mapping[str, Tensor], tree: Any) -> Any:
    """Return the state that `pack` split. Raises CheckpointError for a tree that it did not make."""
    return _decode(tree, tensors)


@dataclass
class _Tensors:
    """The tensors found so far, each with memory of its own, and their originals, any of which may occur again.

    The originals are kept because their addresses identify them: one that is freed gives its address to the next.
    """

    by_name: Dict[str, Tensor] = field(default_factory=dict)
    originals: Dict[Tuple[Any, ...], Tuple[str, Tensor]] = field(default_factory=dict)
    storages: Set[int] = field(default_factory=set)

    def add(self, value: Tensor, place: str) -> str:
        if value.layout != torch.strided or value.dtype not in _DTYPES or value.is_meta or value.is_quantized:
            raise CheckpointError(
                f"{place} is a {value.dtype} tensor ({value.layout} on {value.device}); a checkpoint holds dense "
                f"tensors of {', '.join(str(dtype)[6:] for dtype in _DTYPES)}; convert it first"
            )
        value = value.detach().resolve_neg()
        identity = (value.data_ptr(), value.dtype, value.shape, value.stride(), value.device)
        if value.numel() and identity in self.originals:
            return self.originals[identity][0]
        plain = value.cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        # safetensors refuses tensors that share memory; and a tensor of one value or none is "contiguous" with any
        # strides, which viewing it as bytes refuses.
        if plain.numel() < 2 or storage in self.storages:
            plain = plain.clone(memory_format=torch.contiguous_format)
        self.storages.add(storage)
        name = self._free_name(place)
        self.by_name[name] = plain
        self.originals[identity] = name, value
        return name

    def _free_name(self, place: str) -> str:
        # {"a.b": x} and {"a": {"b": y}} would share a name; safetensors keeps "__metadata__" for itself.
        stem = place.encode("utf-8", "backslashreplace").decode()
        name, count = stem, 1
        while name in self.by_name or name == "__metadata__":
            count += 1
            name = f"{stem}#{count}"
        return name


def _tree(value: Any, place: str, tensors: Optional[_Tensors]) -> Any:
    try:
        return _encode(value, place, tensors)
    except RecursionError as exc:
        what = place or "the state"
        raise CheckpointError(f"{what} contains itself or is nested too deeply; save plain nested values") from exc


def _encode(value: Any, place: str, tensors: Optional[_Tensors]) -> Any:
    """A JSON value: scalars and dicts with string keys as they are; each array starts with what it stands for."""
    if isinstance(value, Tensor) and tensors is not None:
        return ["tensor", tensors.add(value, place)]
    if type(value) in _SCALARS:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else ["float", repr(value)]
    if type(value) in (list, tuple):
        return [type(value).__name__, *(_encode(v, _join(place, i), tensors) for i, v in enumerate(value))]
    if isinstance(value, Mapping):
        items = [(key, _encode(v, _join(place, key), tensors)) for key, v in value.items()]
        if all(type(key) is str for key, _ in items):
            return dict(items)
        return ["dict", *([_encode(key, f"a key of {place or 'the state'}", None), v] for key, v in items)]
    allowed = "None, bool, int, float, str, list, tuple and dict"
    if tensors is not None:
        allowed = f"tensors, {allowed}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise CheckpointError(
        f"{place or 'the state'} is a {kind}; a checkpoint holds {allowed} here; "
        "convert it, e.g. with .item(), torch.as_tensor(...) or str(...)"
    )


def _decode(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(node, dict):
        return {key: _decode(value, tensors) for key, value in node.items()}
    if not isinstance(node, list):
        return node
    tag, *rest = node or [None]
    try:
        if tag == "tensor":
            return tensors[rest[0]]
        if tag == "float":
            return float(rest[0])
        if tag == "list":
            return [_decode(value, tensors) for value in rest]
        if tag == "tuple":
            return tuple(_decode(value, tensors) for value in rest)
        if tag == "dict":
            return {_decode(key, {}): _decode(value, tensors) for key, value in rest}
    except (IndexError, KeyError, TypeError, ValueError) as exc:
        raise CheckpointError(f"the checkpoint's tree is damaged: {exc!r} at a {tag!r}; {_OTHER}") from exc
    raise CheckpointError(f"the checkpoint's tree is damaged: unknown tag {tag!r}; {_OTHER}")


def _join(place: str, key: Any) -> str:
    return f"{place}.{key}" if place else str(key)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _digest(tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> str:
    """SHA-256 over the JSON content and each tensor's name, dtype, shape and bytes: about 1 ms for each megabyte."""
    digest = hashlib.sha256(_json(content).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _header(path: Path, text: Optional[str]) -> Dict[str, Any]:
    header: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        header = json.loads(text or "")
    if not isinstance(header, dict) or header.get("format") != FORMAT or type(header.get("version")) is not int:
        raise CheckpointError(
            f"{path} is a safetensors file, but no checkpoint of snn-core; give one that a run saved, or read its "
            "tensors with safetensors.torch.load_file"
        )
    if header["version"] > VERSION:
        raise CheckpointError(
            f"{path} is a checkpoint of format {header['version']}; this snn-core reads formats up to {VERSION}; "
            "upgrade it: pip install --upgrade snn-core"
        )
    return header


def _replace(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, flush it to the disk, and rename it over `path`."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        # Left by killed processes. Of two live ones the slower gets ENOENT from os.replace: an error, not a mixed file.
        for stale in _temporaries(path):
            with contextlib.suppress(OSError):
                stale.unlink()
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as exc:
        remedy = _REMEDIES.get(exc.errno or 0, "check the folder, or choose another run folder")
        raise RunFolderError(
            f"cannot save the checkpoint {path}: {exc.strerror or exc}; {remedy}; "
            "what was saved there before is untouched"
        ) from exc
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    _sync_folder(path.parent)


def _temporaries(path: Path) -> List[Path]:
    return list(path.parent.glob(f".{glob.escape(path.name)}.*.tmp"))


def _sync_folder(folder: Path) -> None:
    # The rename must reach the disk too. Not every system can open a folder, or sync one; the file is whole either way.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
