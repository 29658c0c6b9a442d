"""Which tests there are depends on torch: hooks are compiled from torch 2.6 on."""

import torch

VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])

collect_ignore = [] if VERSION >= (2, 6) else ["test_compile.py"]
