"""Nested lists, tuples and dicts of tensors: taken apart, put together, compared with what was compiled."""

import dataclasses
import inspect

import torch

from ._errors import Error

AGAIN = " This error occurred because the inputs passed at runtime don't match the inputs used to compile the model."


def tensors_of(structure):
    """Return the tensors in order; what is no dict, list, tuple or tensor is passed over."""
    if isinstance(structure, torch.Tensor):
        return [structure]
    if isinstance(structure, dict):
        structure = list(structure.values())
    if isinstance(structure, (list, tuple)):
        return [tensor for entry in structure for tensor in tensors_of(entry)]
    return []


def mapped(structure, function):
    """Return the structure with `function` of each tensor in its place."""
    if isinstance(structure, torch.Tensor):
        return function(structure)
    if isinstance(structure, dict):
        return {key: mapped(value, function) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        values = [mapped(value, function) for value in structure]
        return type(structure)(*values) if hasattr(structure, "_fields") else type(structure)(values)
    return structure


def check_returned(structure):
    """Refuse what forward may not return: dataclasses keep their tensors hidden, an empty dict breaks the trace."""
    if dataclasses.is_dataclass(structure):
        raise Error(f"Forward returned a {type(structure).__name__}: tensors in a dataclass are not found")
    if isinstance(structure, dict):
        if not structure:
            raise Error("Forward returned an empty dict")
        structure = list(structure.values())
    if isinstance(structure, (list, tuple)):
        for entry in structure:
            check_returned(entry)


def parsed(model, args, kwargs):
    """Return all arguments of forward by name, defaults included."""
    signature = inspect.signature(model.forward)
    parameters = list(signature.parameters.values())
    kinds = {parameter.kind for parameter in parameters}
    free = bool(kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD})
    assert free or len(args) + len(kwargs) <= len(parameters), (
        f"Too many arguments provided: expected {list(signature.parameters)} ({len(parameters)}) "
        f"but got {len(args) + len(kwargs)}"
    )
    for name in kwargs:
        assert free or name in signature.parameters, f"{name} is not a valid parameter."
    bound = signature.bind_partial(*args, **kwargs)
    for parameter in parameters:
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        if parameter.name not in bound.arguments and parameter.default is inspect.Parameter.empty:
            raise Error(f"Mandatory parameter {parameter.name} missing")
    bound.apply_defaults()
    return bound


def validate(name, compiled, given):
    """Refuse an input that is not of the kind, the shape and the type that was compiled."""
    if type(compiled) is not type(given):
        raise Error(f"Type mismatch for {name}: expected {type(compiled)} but got {type(given)}.{AGAIN}")
    if isinstance(compiled, torch.Tensor):
        if compiled.dtype != given.dtype:
            raise Error(f"Data type mismatch for {name}: expected {compiled.dtype} but got {given.dtype}.{AGAIN}")
        if compiled.shape != given.shape:
            raise Error(f"Shape mismatch for {name}: expected {compiled.shape} but got {given.shape}.{AGAIN}")
    elif isinstance(compiled, dict):
        if set(compiled) != set(given):
            raise Error(f"Keys mismatch for {name}.{AGAIN}")
        for key, value in compiled.items():
            validate(f"{name}[{key}]", value, given[key])
    elif isinstance(compiled, (list, tuple)):
        if len(compiled) != len(given):
            raise Error(f"Length mismatch for {name}: expected {len(compiled)} elements but got {len(given)}.{AGAIN}")
        for index, value in enumerate(compiled):
            validate(f"{name}[{index}]", value, given[index])
    elif compiled != given:
        raise Error(f"Value mismatch for {name}: expected {compiled} but got {given}.{AGAIN}")
