"""Open an onnxruntime session; and, run as a script, a new model's first inferences under limits (spec 8.6.7).

The script needs nothing of ours, so it runs isolated (`python -I`): model on stdin, one JSON line on stdout.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from onnxruntime import InferenceSession

ROWS = 64
_FAILED = 3


def open_session(onnx: bytes) -> InferenceSession:
    """One thread, no memory arena, no file written, the format fixed to ONNX so that no other loader is chosen."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def runtime_errors() -> tuple[type[Exception], ...]:
    """Every exception that onnxruntime raises for a bad model; they share no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = (value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception))
    return (*found, RuntimeError, ValueError, MemoryError)


def limit(cpu_seconds: int, memory: int) -> None:
    """Cap this process from here on: CPU time, address space beyond what is mapped now, no file, no core dump."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + cpu_seconds)
    _lower(resource.RLIMIT_AS, _address_space() + memory)
    _lower(resource.RLIMIT_NOFILE, 3)  # stdin, stdout, stderr: the model can open nothing
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)


def run(onnx: bytes, features: int) -> None:
    """First inferences: one unknown row, then 64 with zeros, NaN and large values; ValueError for an odd answer."""
    import numpy as np

    session = open_session(onnx)
    unknown = np.full((1, features), np.nan, dtype=np.float32)
    mixed = np.zeros((ROWS, features), dtype=np.float32)
    mixed[1], mixed[2], mixed[3] = np.nan, 1e30, -1e30
    for rows in (unknown, mixed):
        answer = session.run(["pd", "score", "contributions"], {"features": rows})
        _check_answer(answer, len(rows), features)


def _check_answer(answer: list[np.ndarray[Any, Any]], rows: int, features: int) -> None:
    import numpy as np

    pd, score, contributions = answer
    if pd.shape not in ((rows,), (rows, 1)) or score.shape != pd.shape or contributions.shape != (rows, features):
        raise ValueError(f"it answers shapes {pd.shape}, {score.shape}, {contributions.shape}")
    if not all(np.isfinite(values).all() for values in answer):
        raise ValueError("it answers numbers that are not finite")
    if pd.min() < 0 or pd.max() > 1 or score.min() < 300 or score.max() > 900:
        raise ValueError("it answers a probability outside 0 to 1 or a score outside 300 to 900")


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _address_space() -> int:
    """Bytes mapped by this process; 2 GiB where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 2 << 30


def main() -> int:
    """`probe.py FEATURES CPU_SECONDS MEMORY`, the model on stdin; exit 0 when it behaved."""
    features, cpu_seconds, memory = (int(value) for value in sys.argv[1:4])
    onnx = sys.stdin.buffer.read()
    errors = runtime_errors()
    limit(cpu_seconds, memory)
    try:
        run(onnx, features)
    except errors as error:
        print(json.dumps({"error": (str(error).splitlines() or [type(error).__name__])[0][:160]}))
        return _FAILED
    print(json.dumps({"rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
