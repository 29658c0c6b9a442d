"""Whether torch traces the code that runs."""

import torch

__all__ = ["is_compiling"]


def is_compiling() -> bool:
    """Whether torch.compile traces the caller; False in torch 2.0, whose compiler runs no hooks."""
    compiler = getattr(torch, "compiler", None)
    return compiler is not None and bool(compiler.is_compiling())
