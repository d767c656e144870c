"""TorchScript for what should run without Python's lock: no thread's steps then wait for another's (spec 7.8)."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
R = TypeVar("R")


def unlocked(function: Callable[P, R]) -> Callable[P, R]:
    """`function` in TorchScript; where Python is too new for that, or PYTORCH_JIT=0 asks for it, as it stands.

    TorchScript is deprecated, and nothing that replaces it runs without a compiler: ADR 0105.
    """
    if sys.version_info >= (3, 14):
        return function
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return cast("Callable[P, R]", torch.jit.script(function))
