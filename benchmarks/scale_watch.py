"""What the processes of one Flower home cost: life, CPU and memory by role from /proc, bytes from a counting relay."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_SECONDS = 0.1
MEMORY_EVERY = 4  # samples; reading a large process's map takes milliseconds
LARGE = 3000  # bytes; polls, heartbeats and acknowledgements are smaller, plan, knots and answers larger
TICKS = os.sysconf("SC_CLK_TCK")
ROLES = {
    b"flwr-clientapp": "message",
    b"flwr-serverapp": "server app",
    b"flower-superexec": "executor",
    b"flower-supernode": "supernode",
    b"flower-superlink": "superlink",
}


@dataclass
class Process:
    """One process: Unix seconds of its start, (Unix, CPU) seconds of every sample, peak memory in MB."""

    pid: int
    role: str
    start: float
    history: list[tuple[float, float]] = field(default_factory=list)
    rss: float = 0.0
    pss: float = 0.0
    ended: bool = False

    def cpu(self, first: float, last: float) -> float:
        """CPU seconds between two moments."""
        inside = [cpu for at, cpu in self.history if at <= last]
        before = [cpu for at, cpu in self.history if at <= first]
        return (inside[-1] if inside else 0.0) - (before[-1] if before else 0.0)


@dataclass
class Watch:
    """Samples every process whose environment names this FLWR_HOME, in a thread, until `stop`."""

    home: Path
    processes: dict[tuple[int, int], Process] = field(default_factory=dict)
    _others: set[tuple[int, int]] = field(default_factory=set)
    _done: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin sampling."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End sampling; what was seen stays."""
        self._done.set()
        self._thread.join()

    def of(self, role: str) -> list[Process]:
        """Every process seen in a role."""
        return [process for process in self.processes.values() if process.role == role]

    def end_leftovers(self) -> list[int]:
        """Kill, by pid, what is still alive of this home; returns those pids (empty when all ended by themselves)."""
        self._sample(memory=False)
        left = [process.pid for process in self.processes.values() if not process.ended]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left

    def _run(self) -> None:
        count = 0
        while not self._done.wait(SAMPLE_SECONDS):
            self._sample(memory=count % MEMORY_EVERY == 0)
            count += 1

    def _sample(self, memory: bool) -> None:
        now, boot = time.time(), time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        alive = set()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                key = (int(entry.name), int(fields[19]))
                known = self.processes.get(key) or self._meet(entry, key, boot)
                if known is None:
                    continue
                known.history.append((now, (int(fields[11]) + int(fields[12])) / TICKS))
                if fields[0] != "Z":
                    alive.add(key)
                    # A child is its parent's copy until it runs a program of its own.
                    known.role = _role(entry) or known.role
                    if memory:
                        _weigh(entry, known)
        for key, process in self.processes.items():
            process.ended = key not in alive

    def _meet(self, entry: Path, key: tuple[int, int], boot: float) -> Process | None:
        if key in self._others:
            return None
        if f"FLWR_HOME={self.home}".encode() not in (entry / "environ").read_bytes().split(b"\0"):
            self._others.add(key)
            return None
        return self.processes.setdefault(key, Process(key[0], _role(entry) or "other", boot + key[1] / TICKS))


def _role(entry: Path) -> str | None:
    line = (entry / "cmdline").read_bytes()
    return next((role for mark, role in ROLES.items() if mark in line), None)


def _weigh(entry: Path, process: Process) -> None:
    for line in (entry / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        if name == "Rss":
            process.rss = max(process.rss, int(value.split()[0]) / 1024)
        if name == "Pss":
            process.pss = max(process.pss, int(value.split()[0]) / 1024)


class Relay:
    """A relay on loopback that counts the bytes a node sends up and gets down, with the time of each."""

    def __init__(self, port: int) -> None:
        self.up: list[tuple[float, int]] = []
        self.down: list[tuple[float, int]] = []
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def counted(self, first: float, last: float) -> tuple[int, int]:
        """Bytes down and up between two moments in Unix seconds."""
        between = [sum(size for at, size in counts if first < at <= last) for counts in (self.down, self.up)]
        return between[0], between[1]

    def carried(self, first: float, last: float) -> tuple[float, float] | None:
        """When a question came down and an answer went up between two moments: the first and last large pieces."""
        down = [at for at, size in self.down if first < at <= last and size > LARGE]
        up = [at for at, size in self.up if first < at <= last and size > LARGE]
        return (down[0], up[-1]) if down and up else None

    def close(self) -> None:
        """Accept no more connections."""
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                threading.Thread(target=_pump, args=(near, far, self.up), daemon=True).start()
                threading.Thread(target=_pump, args=(far, near, self.down), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, counts: list[tuple[float, int]]) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            counts.append((time.time(), len(data)))
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def watching(home: Path) -> Iterator[Watch]:
    """A `Watch` of `home` for the length of a block."""
    watch = Watch(home)
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()
