"""The compiled library of src/: found, checked against this version, and its C structures (spec 7.8).

It is an option of the install: `available()` says why it is not there. Its layout is src/round.hpp, to the letter.
"""

from __future__ import annotations

import ctypes
import json
import struct
from ctypes import POINTER, c_double, c_int32, c_int64, c_uint64, c_void_p
from functools import lru_cache
from importlib.metadata import distributions
from itertools import islice
from pathlib import Path
from sysconfig import get_config_var
from typing import Any
from urllib.parse import unquote, urlparse

from model.errors import RunError

ABI = 1  # changes with the layout or the meaning of anything in src/round.hpp
ISAS = ("baseline", "AVX2", "AVX-512")
BUILD = "python setup.py build_ext --inplace"
_ELF64 = struct.Struct("<40sQ10xHH2x")  # e_shoff, e_shentsize and e_shnum of the file's header
_PLACE = Path("simulation", "engine", "native")


class Phones(ctypes.Structure):
    """ps_phones."""

    _fields_ = (
        ("count", c_int64),
        ("ids", c_void_p),
        ("first", c_void_p),
        ("counts", c_void_p),
        ("rows", c_int64),
        ("y", c_void_p),
    )


class Local(ctypes.Structure):
    """ps_local."""

    _fields_ = (
        ("steps", c_int32),
        ("epochs", c_int32),
        ("batch", c_int64),
        ("rate", c_double),
        ("prox", c_double),
        ("clip", c_double),
        ("scale", c_int64),
        ("seed", c_uint64),
        ("round", c_uint64),
    )


class Answer(ctypes.Structure):
    """ps_answer."""

    _fields_ = (
        ("sum", c_void_p),
        ("plain", c_void_p),
        ("norms", c_void_p),
        ("sample", c_int64),
        ("raw", c_void_p),
        ("units", c_void_p),
        ("failed", c_int64),
    )


class Mlp(ctypes.Structure):
    """ps_mlp."""

    _fields_ = (
        ("width", c_int32),
        ("layers", c_int32),
        ("sizes", c_void_p),
        ("x", c_void_p),
        ("codes", c_void_p),
        ("code_bytes", c_int32),
        ("features", c_int32),
        ("feature", c_void_p),
        ("table", c_void_p),
        ("values", c_void_p),
        ("value_count", c_int64),
        ("flat", c_void_p),
        ("dimension", c_int64),
        ("activation", c_int32),
    )


class Additive(ctypes.Structure):
    """ps_additive."""

    _fields_ = (
        ("features", c_int32),
        ("codes", c_void_p),
        ("code_bytes", c_int32),
        ("start", c_void_p),
        ("levels", c_int64),
        ("hat", c_void_p),
        ("low", c_void_p),
        ("high", c_void_p),
        ("flag", c_void_p),
        ("sizes", c_void_p),
        ("blocks", c_void_p),
        ("centre", c_void_p),
        ("bias", c_double),
        ("flat", c_void_p),
        ("dimension", c_int64),
    )


_PARTS = (Phones, Local, Answer, Mlp, Additive)


class Library:
    """The loaded library. RunError if it is not one of this version."""

    def __init__(self, path: Path) -> None:
        self._functions = _open(path)
        self.best_isa = int(self._functions.ps_isa())

    def call(self, phones: Phones, local: Local, model: Mlp | Additive, answer: Answer, threads: int, isa: int) -> int:
        """One round; 0 if done, else the reason as in round.hpp."""
        name = "ps_mlp_round" if isinstance(model, Mlp) else "ps_additive_round"
        parts = (ctypes.byref(part) for part in (phones, local, model, answer))
        return int(getattr(self._functions, name)(*parts, threads, isa))

    def fma_peak(self, threads: int, seconds: float = 0.2, isa: int = -1) -> float:
        """float32 multiply-adds in registers alone, GFLOP/s: what the processor gives right now."""
        return float(self._functions.ps_fma_peak(threads, seconds, isa))


def available() -> str | None:
    """None if the kernel can be used, else why not, in one sentence."""
    try:
        library()
    except RunError as error:
        return str(error)
    return None


@lru_cache(maxsize=1)
def library() -> Library:
    """The library of this installation, loaded once. RunError where there is none or it is another version's."""
    found = next((path for path in places() if path.is_file()), None)
    if found is None:
        raise RunError(f"the compiled kernel is not there; with a C++ compiler, build it by `{BUILD}`")
    return Library(found)


def places() -> list[Path]:
    """Where the library may lie: beside this file, or in the installed package.

    A bundle that Flower runs holds this file and no library: then the environment's own installation has it.
    """
    file = _PLACE / f"_kernels{get_config_var('EXT_SUFFIX') or '.so'}"
    roots = [Path(__file__).parents[len(_PLACE.parts)]]
    for installed in islice(distributions(name="pocketscore"), 1):
        roots.append(Path(str(installed.locate_file(""))))
        note = json.loads(installed.read_text("direct_url.json") or "{}")
        if note.get("dir_info", {}).get("editable"):
            roots.append(Path(unquote(urlparse(note["url"]).path)))
    return [root / file for root in roots]


def _open(path: Path) -> Any:
    again = f"build it again by `{BUILD}`"
    if _cut(path):
        raise RunError(f"{path.name} is cut off; {again}")
    try:
        functions = ctypes.CDLL(str(path))
        version = int(functions.ps_abi())
    except (OSError, AttributeError) as error:
        raise RunError(f"{path.name} cannot be loaded as the compiled kernel; {again}") from error
    if version != ABI:
        raise RunError(f"the compiled kernel is of version {version}, not {ABI}; {again}")
    try:
        _declare(functions)
        fit = all(functions.ps_size(i) == ctypes.sizeof(part) for i, part in enumerate(_PARTS))
    except AttributeError as error:
        raise RunError(f"{path.name} lacks a part of the compiled kernel; {again}") from error
    if not fit:
        raise RunError(f"the compiled kernel's structures are laid out in another way; {again}")
    return functions


def _cut(path: Path) -> bool:
    """Whether an ELF file ends before its own section table: loading one would end the process, not raise."""
    try:
        with open(path, "rb") as file:
            head, size = file.read(_ELF64.size), path.stat().st_size
    except OSError:
        return False  # the loader says it better
    if len(head) < _ELF64.size or not head.startswith(b"\x7fELF\x02\x01"):
        return head.startswith(b"\x7fELF") and len(head) < _ELF64.size
    _, place, each, number = _ELF64.unpack(head)
    return bool(place + each * number > size)


def _declare(functions: Any) -> None:
    functions.ps_size.argtypes, functions.ps_size.restype = [c_int32], c_int64
    functions.ps_isa.argtypes, functions.ps_isa.restype = [], c_int32
    functions.ps_fma_peak.argtypes, functions.ps_fma_peak.restype = [c_int32, c_double, c_int32], c_double
    for name, model in (("ps_mlp_round", Mlp), ("ps_additive_round", Additive)):
        function = getattr(functions, name)
        function.argtypes = [POINTER(Phones), POINTER(Local), POINTER(model), POINTER(Answer), c_int32, c_int32]
        function.restype = c_int32
