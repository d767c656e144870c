"""The peers: an environment of its own for each, and a process that waits for its turn without using a processor."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent.parent
ENVIRONMENTS = HERE / ".peers"
LOGS = HERE.parent / "runs" / "bench"


class PeerError(RuntimeError):
    """A peer did not install, start or answer."""


@dataclass(frozen=True)
class Kind:
    """A peer: what pip installs, call by call, and the settings to try. `pause`: it burns cycles while it waits."""

    name: str
    title: str
    packages: tuple[tuple[str, ...], ...]
    settings: tuple[str, ...]
    quick: tuple[str, ...]
    pause: bool = False

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return ENVIRONMENTS / self.name / "bin" / "python"


# torch exact and first: the build for processors alone. NumPy clients in Flower, so it needs no torch.
KINDS = {
    "flower": Kind(
        "flower", "Flower on Ray", (("flwr[simulation]==1.41.0",),), ("0.25", "0.5", "1", "2"), ("0.5", "1"), True
    ),
    "pfl": Kind(
        "pfl", "pfl", (("torch==2.13.0",), ("pfl==0.6.0",)),
        ("1,1,plain", "1,2,plain", "2,1,plain", "2,1,sorted"), ("1,1,plain", "2,1,plain"),
    ),
    "fedjax": Kind(
        "fedjax", "FedJAX", (("fedjax==0.0.17", "jax==0.4.34", "jaxlib==0.4.34", "dm-haiku==0.0.13", "numpy<2.3"),),
        ("jit,lean", "jit,stock", "pmap,lean"), ("jit,lean",),
    ),
}  # fmt: skip


def install(kind: Kind) -> None:
    """Make the environment unless it is there with these very packages."""
    stamp, wanted = kind.python.parent.parent / "installed.txt", repr(kind.packages)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"installing {kind.title} into {kind.python.parent.parent}", flush=True)
    pip = [str(kind.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    commands = [[sys.executable, "-m", "venv", str(kind.python.parent.parent)]]
    commands += [[*pip, *packages] for packages in kind.packages]
    for command in commands:
        if subprocess.run(command, check=False).returncode:
            raise PeerError(f"{kind.title} could not be installed; see pip's message above")
    stamp.write_text(wanted)


@dataclass
class Peer:
    """One process of a peer with one setting on one data file. It warms up while it starts."""

    kind: Kind
    setting: str
    data: Path
    cohort: int
    fresh: bool = False
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """As in the table."""
        return f"{self.kind.name} {self.setting}"

    def start(self) -> None:
        """Begin to load; `ready` waits for it."""
        LOGS.mkdir(parents=True, exist_ok=True)
        home = tempfile.gettempdir()
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "FLWR_", "RAY_"))}
        env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE), "FLWR_HOME": f"{home}/flwr-bench"}
        command = [str(self.kind.python), "-W", "ignore", "-m", f"engines.on.{self.kind.name}", str(self.data)]
        command += ["--cohort", str(self.cohort), "--setting", self.setting, *(["--fresh"] if self.fresh else [])]
        log = (LOGS / f"{self.kind.name}.log").open("ab")
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=log, cwd=HERE, env=env, bufsize=0, start_new_session=True
        )

    def ready(self, seconds: float = 300) -> None:
        """Wait until it has warmed up."""
        self._answer(seconds)
        self._pause()

    def go(self, rounds: int, cohort: int, seconds: float = 600) -> float:
        """Seconds of so many rounds, by the peer's own clock."""
        return float(self._ask(f"go {rounds} {cohort}", seconds))

    def model(self) -> NDArray[np.float32]:
        """Where it has come to, (d,)."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.npy"
            self._ask(f"save {path}", 60)
            return np.asarray(np.load(path), dtype=np.float32)

    def close(self) -> None:
        """End it: first by closing its input, and if that does not help, its process group."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        self._signal(signal.SIGCONT, process)
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _ask(self, line: str, seconds: float) -> str:
        process = self._running()
        self._signal(signal.SIGCONT, process)
        process.stdin.write(f"{line}\n".encode())  # type: ignore[union-attr]
        answer = self._answer(seconds)
        self._pause()
        return answer

    def _answer(self, seconds: float) -> str:
        out = self._running().stdout
        heard, _, _ = select.select([out], [], [], seconds)
        line = out.readline().decode().strip() if heard and out else ""
        if not line:
            raise PeerError(f"{self.kind.title} ({self.setting}) did not answer; see {LOGS}/{self.kind.name}.log")
        return line

    def _pause(self) -> None:
        if self.kind.pause:
            self._signal(signal.SIGSTOP, self._running())

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise PeerError(f"{self.kind.title} was not started")
        return self._process

    @staticmethod
    def _signal(number: int, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            os.kill(process.pid, number)
