"""A real SuperLink and n SuperNodes on loopback, as processes, for one run; every one is reaped by its pid (spec 7.12).

Each SuperNode is a farm over its share of the workspace. Nothing is encrypted between these processes because
nothing leaves this machine; a deployment passes certificates and node keys instead of `--insecure`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from model.errors import RunError
from simulation.ports import free_port
from simulation.workspace import Workspace

BOOT_SECONDS = 60.0
STOP_SECONDS = 5.0
CONNECTION = '[superlink]\ndefault = "here"\n[superlink.here]\naddress = "{address}"\ninsecure = true\n'
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "OMP_NUM_THREADS": "1",
}


def environment(home: Path, port: int | None = None) -> dict[str, str]:
    """Flower's environment for a private home: no telemetry, no update check, no installing, our Python first."""
    scripts = str(Path(sys.executable).parent)
    path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    own = {**os.environ, **QUIET, "FLWR_HOME": str(home), "PATH": path}
    return own if port is None else {**own, "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port)}


@contextlib.contextmanager
def deployment(home: Path, nodes: int, *, port: int | None = None, relay: Sequence[str] = ()) -> Iterator[str]:
    """Start a SuperLink and `nodes` SuperNodes under `home`; yields the SuperLink's address.

    `relay` may name one address a node to dial instead of the SuperLink's own, such as a recording relay.
    RunError when the SuperLink does not become healthy; all processes have ended when the block is left.
    """
    home.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{port or free_port()}"
    with contextlib.ExitStack() as stack:
        host, own_port = address.split(":")
        link = ["flower-superlink", "--insecure", "--disable-runtime-dependency-installation"]
        place = ["--host", host, "--port", own_port, "--database", str(home / "state.db")]
        server = stack.enter_context(_process([*link, *place], home, "superlink"))
        _await_health(address)
        for index in range(nodes):
            dial = relay[index] if relay else address
            node = ["flower-supernode", "--insecure", "--superlink", dial, "--port", str(free_port())]
            config = f"partition-id={index} num-partitions={nodes}"
            stack.enter_context(_process([*node, "--node-config", config], home, f"supernode-{index}"))
        # The server ends first: to one that outlives its nodes every phone is lost, and a sum has few attempts.
        stack.callback(_stop, server)
        yield address


def run_deployed(project: Path, workspace: Workspace, home: Path, nodes: int, *, timeout: float = 600.0) -> str:
    """Run `workspace` over a SuperLink with `nodes` SuperNodes; returns the run's log.

    `project` is the folder with pyproject.toml. RunError, with the log's last lines, when no result appears in time.
    """
    workspace.expect(nodes)
    with deployment(home, nodes) as address:
        (home / "config.toml").write_text(CONNECTION.format(address=address))
        return flwr_run(project, workspace, home, ["here"], timeout=timeout)


def run_simulated(project: Path, workspace: Workspace | None, home: Path, nodes: int, *, timeout: float = 600.0) -> str:
    """`flwr run` on Flower's own simulation runtime; the SuperLink it leaves behind is ended. Returns the log."""
    home.mkdir(parents=True, exist_ok=True)
    if workspace is not None:
        workspace.expect(nodes)
    try:
        return flwr_run(project, workspace, home, ["--federation-config", f"num-supernodes={nodes}"], timeout=timeout)
    finally:
        for pid in processes_of(home):
            _end(pid)


def flwr_run(project: Path, workspace: Workspace | None, home: Path, options: Sequence[str], *, timeout: float) -> str:
    """`flwr run PROJECT --stream` in a private home; RunError when it fails or leaves no result, with the coordinator's
    own sentence where it left one."""
    _require_project(project)
    command = ["flwr", "run", str(project), *options, "--stream"]
    if workspace is not None:
        command += ["--run-config", f'workspace="{workspace.folder.resolve()}"']
    try:
        done = subprocess.run(
            command, env=environment(home, free_port()), capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(
            f"the Flower run took more than {timeout:.0f} s; start it again to resume; see {home}"
        ) from error
    log = done.stdout + done.stderr
    if done.returncode or (workspace is not None and not workspace.result.exists()):
        if workspace is not None and workspace.failure.exists():
            raise RunError(workspace.failure.read_text("utf-8"))
        tail = " / ".join(log.strip().splitlines()[-5:])
        raise RunError(f"the Flower run left no result; its log under {home} ends: {tail}")
    return log


def processes_of(home: Path) -> list[int]:
    """Pids of living processes started for this Flower home: those whose command line names its path (Linux)."""
    found, mark = [], str(home.resolve()).encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes()
            if int(entry.name) != os.getpid() and b"superlink" in line and mark in line:
                found.append(int(entry.name))
    return found


@contextlib.contextmanager
def _process(command: Sequence[str], home: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    executable = Path(sys.executable).parent / command[0]
    with open(home / f"{name}.log", "ab") as log:
        # A session of its own, so that the children a SuperNode starts end with it.
        process = subprocess.Popen(
            [str(executable), *command[1:]], env=environment(home), stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


def _end(pid: int) -> None:
    end = time.monotonic() + STOP_SECONDS
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        while time.monotonic() < end:
            os.kill(pid, 0)
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)


def _await_health(address: str) -> None:
    end = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < end:
        # Not listening yet, or listening and not ready.
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}/health", timeout=2):
            return
        time.sleep(0.2)
    raise RunError(f"the SuperLink on {address} did not become healthy in {BOOT_SECONDS:.0f} s; see its log")


def _require_project(project: Path) -> None:
    try:
        components = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["components"]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise RunError(f"{project} holds no Flower app; run this from the repository's root") from error
    if "serverapp" not in components:
        raise RunError(f"{project} names no serverapp; run this from the repository's root")
