"""What a Flower node costs: `python benchmarks/scale_out.py [--quick] [--out FILE]`; `--project` prices more phones.

A made-up population so small that its phones' work is nothing is trained over a real SuperLink with 1, 2 and 4
SuperNodes, and in process with up to 1,000 nodes. Tables go to the terminal, last comes one JSON object. On a busy
machine read CPU seconds and the parts of a round: process starts stretch with the load, polling does not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import scale_projection
from scale_in_process import in_process, message_bytes, slope
from scale_watch import Relay, Watch, watching

from fl_client.phones import mix
from fl_server.checkpoint import Checkpoint
from model.canonical import decode
from model.contract.envelope import SigningKey
from model.contract.plan import TrainingPlan
from model.risk.registry import R_DEFAULT, default_schema
from simulation.dataset import Dataset, holdout_by_id
from simulation.planning import Options, build_plan
from simulation.ports import free_port
from simulation.superlink import CONNECTION, deployment, environment, flwr_run
from simulation.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[1]
PHONES = 2_000
Figures = dict[str, Any]


def phones_of_nothing() -> Dataset:
    """PHONES phones with one made-up row each under the real schema, so that messages have their real sizes."""
    schema, random = default_schema(R_DEFAULT), np.random.Generator(np.random.Philox(1))
    x = np.stack(
        [
            random.integers(0, f.buckets, PHONES) if f.kind == "category" else random.uniform(f.lower, f.upper, PHONES)
            for f in schema.features
        ],
        axis=1,
    ).astype(np.float32)
    ids, y = mix(np.arange(PHONES, dtype=np.uint64), 1), (random.random(PHONES) < 0.2).astype(np.float32)
    return Dataset(schema, ids, np.arange(PHONES + 1), x, y, {}, holdout_by_id(ids))


def workspaces(folder: Path) -> Callable[[str, int], Workspace]:
    """A maker of prepared workspaces by (name, rounds) over the same phones."""
    phones_of_nothing().save(folder / "data")
    data = Dataset.load(folder / "data")
    keys = [SigningKey.generate(), SigningKey.generate()]

    def make(name: str, rounds: int) -> Workspace:
        place = Workspace(folder / name)
        place.folder.mkdir()
        (place.folder / "data").symlink_to(folder / "data")
        whole = build_plan(data, Options(rounds=rounds), unit="phone", now=int(time.time()))
        # Knots and training alone: neither calibration nor evaluation is charged, so there is none.
        charges = tuple(c for c in whole.privacy.charges if c.name in ("knots", "training"))
        place.prepare(data, replace(whole, privacy=replace(whole.privacy, charges=charges)), keys)
        return place

    return make


# ---- over a real SuperLink


def deployed(workspace: Workspace, home: Path, nodes: int) -> Figures:
    """One run over a SuperLink with `nodes` SuperNodes, each behind a counting relay."""
    workspace.expect(nodes)
    port, load, start = free_port(), os.getloadavg()[0], time.time()
    with ExitStack() as stack:
        relays = [Relay(port) for _ in range(nodes)]
        for relay in relays:
            stack.callback(relay.close)
        watch = stack.enter_context(watching(home))
        with deployment(home, nodes, port=port, relay=[relay.address for relay in relays]) as address:
            (home / "config.toml").write_text(CONNECTION.format(address=address))
            flwr_run(PROJECT, workspace, home, ["here"], timeout=300)
        time.sleep(1)
        left = watch.end_leftovers()
    closed = _closed(workspace)
    # The first training round readies what the later ones find ready, so figures are those of the later ones.
    steady, rounds = (closed[1], closed[-1]), list(pairwise(closed[1:]))
    found: Figures = {"nodes": nodes, "load_before": load, "first_release_after": closed[0] - start, "left": len(left)}
    found |= _parts(rounds, relays, watch) | _memory(watch)
    traffic = [[size / len(rounds) for size in relay.counted(*steady)] for relay in relays]
    found |= dict(zip(("down", "up"), (statistics.median(way) for way in zip(*traffic, strict=True)), strict=True))
    return found | _cpu(watch, steady, nodes * len(rounds))


def _closed(workspace: Workspace) -> list[float]:
    """Unix seconds at which each phase became durable."""
    plan = TrainingPlan.from_dict(decode(workspace.signed().payload, max_bytes=1 << 22))
    checkpoint = Checkpoint(workspace.releases, plan.digest)
    return [checkpoint.when(release) for release in checkpoint.releases()]


def _parts(rounds: Sequence[tuple[float, float]], relays: Sequence[Relay], watch: Watch) -> Figures:
    """Medians over rounds, along the node that answers last: what passes between the steps of its message."""
    names = ("round", "until_question", "until_process", "until_answer", "until_release")
    parts = []
    for last, now in rounds:
        carried = [times for relay in relays if (times := relay.carried(last, now))]
        if not carried:
            continue
        asked, answered = max(carried, key=lambda times: times[1])
        started = min((p.start for p in watch.of("message") if asked - 0.1 < p.start < answered), default=asked)
        parts.append((now - last, asked - last, started - asked, answered - started, now - answered))
    return dict(zip(names, (statistics.median(part) for part in zip(*parts, strict=True)), strict=True))


def _memory(watch: Watch) -> Figures:
    """Peak MB by role, median over its processes; proportional (PSS) and resident (RSS)."""
    roles = ("superlink", "supernode", "executor", "message", "server app")
    return {
        f"{role} {kind}": statistics.median([getattr(p, kind) for p in watch.of(role) if p.pss > 0] or [0.0])
        for role in roles
        for kind in ("pss", "rss")
    }


def _cpu(watch: Watch, steady: tuple[float, float], messages: int) -> Figures:
    """CPU seconds by role for one message of the steady rounds, idle polling in them included."""
    roles = ("superlink", "supernode", "executor", "message", "server app")
    return {f"{role} cpu": sum(p.cpu(*steady) for p in watch.of(role)) / messages for role in roles}


def imports(repeats: int) -> Figures:
    """Median seconds and CPU seconds from process start until this federation's apps are imported; torch or not."""
    wall, cpu = [], []
    code = "import sys, simulation.flower; print('torch' in sys.modules)"
    with tempfile.TemporaryDirectory() as home:
        for _ in range(repeats + 1):
            start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [sys.executable, "-c", code]
            told = subprocess.run(command, cwd=PROJECT, env=environment(Path(home)), check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            wall.append(time.perf_counter() - start)
            cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    torch = b"True" in told.stdout
    return {"seconds": statistics.median(wall[1:]), "cpu": statistics.median(cpu[1:]), "loads_torch": torch}


# ---- all of it


def measure(quick: bool) -> Figures:
    """Every figure; about two minutes when `quick` and six otherwise, longer on a busy machine."""
    with tempfile.TemporaryDirectory(prefix="scale-out-") as place:
        folder = Path(place)
        make = workspaces(folder)
        found: Figures = {"load": os.getloadavg()[0], "phones": PHONES, "python": imports(1 if quick else 3)}
        found["bytes"] = message_bytes(make("bytes", 2))
        counts = (1, 10, 100) if quick else (1, 10, 100, 1000)
        found["in_process"] = [in_process(make(f"in-{n}", 3 if n < 1000 else 2), n) for n in counts]
        many = found["in_process"][1:]
        found["message"] = {"node": slope(many, "cpu"), "coordinator": slope(many, "coordinator_cpu")}
        show_in_process(found)
        rounds, found["deployed"] = (2 if quick else 4), []
        for nodes in (1, 4) if quick else (1, 2, 4):
            found["deployed"].append(deployed(make(f"out-{nodes}", rounds), folder / f"home-{nodes}", nodes))
            show_deployed(found["deployed"][-1])
        return found


def show_in_process(found: Figures) -> None:
    """Bytes and in-process costs as lines."""
    print("bytes of a training round: " + ", ".join(f"{name} {n:,}" for name, n in found["bytes"].items()))
    start = found["python"]
    torch = "torch with them" if start["loads_torch"] else "no torch"
    print(f"start and imports of a process: {start['seconds']:.2f} s, {start['cpu']:.2f} CPU s, {torch}")
    for row in found["in_process"]:
        print(
            f"in process, {row['nodes']:>5} nodes: {row['seconds'] * 1e3:9.1f} ms a round, {row['cpu'] * 1e3:9.1f} CPU,"
            f" of which coordinator {row['coordinator_cpu'] * 1e3:7.1f}"
        )
    cost = found["message"]
    print(f"a node more: {cost['node'] * 1e6:.0f} CPU us a round, coordinator {cost['coordinator'] * 1e6:.0f} of them")


def show_deployed(row: Figures) -> None:
    """One SuperLink run as lines."""
    print(
        f"SuperLink, {row['nodes']} SuperNodes: {row['round']:.1f} s a round = {row['until_question']:.1f} until the "
        f"last node has its question + {row['until_process']:.1f} until its process starts + {row['until_answer']:.1f} "
        f"until its answer + {row['until_release']:.1f} until the release; first release after"
        f" {row['first_release_after']:.0f} s; a node and round: {row['down']:,.0f} B down, {row['up']:,.0f} B up"
    )
    for role in ("superlink", "supernode", "executor", "message", "server app"):
        print(
            f"    {role:<11} PSS {row[f'{role} pss']:4.0f} MB, RSS {row[f'{role} rss']:4.0f} MB,"
            f" {row[f'{role} cpu']:.2f} CPU s a message"
        )


def main() -> None:
    """Parse options; measure or project; print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 and 4 SuperNodes, fewer rounds; about 2 minutes")
    parser.add_argument("--out", type=Path, help="write the JSON here as well")
    parser.add_argument("--project", action="store_true", help="measure nothing; noise, ε and cost of --phones phones")
    scale_projection.add_options(parser)
    options = parser.parse_args()
    act = partial(scale_projection.project, options) if options.project else partial(measure, options.quick)
    text = json.dumps(act(), indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
