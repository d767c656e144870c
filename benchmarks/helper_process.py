"""Mode helper with both servers as processes: CPU time of each, wall time and bytes of a round, over HTTPS on loopback.

    python benchmarks/helper_process.py [--quick] [--phones 1000,10000,100000] [--dim 10000] [--json FILE]

Phones send one message each: header, vector of 32-bit words, sealed seed. The coordinator reads and adds each as it
comes, asks the helper's process for the share, checks it, subtracts it and adds its own noise; phones' time is shown
apart. CPU times are of all threads, the helper's from the kernel's account of its process. Flower's transport is left
out. Exit code 1 if a target is missed. How long one X25519 exchange takes is printed beside, for machines differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fl_server.helper import SecondServer
from fl_server.helper_https import HttpsHelper
from fl_server.review.helper.home import HelperHome
from model.canonical import decode, encode
from model.contract.envelope import SigningKey, keyid, sign
from model.contract.masked import (
    BATCH_SCHEMA,
    MASKED_SCHEMA,
    MAX_BATCH_BYTES,
    SEED_BYTES,
    BatchRequest,
    MaskedHeader,
    read_residues,
    split_seeds,
)
from model.contract.plan import DOMAIN, TrainingPlan
from model.contract.releases import charge_of, share_sigma
from model.privacy.noise import OsSource, discrete_gaussian
from model.secagg.context import Context
from model.secagg.two_server import add, shield, unshield
from simulation.second import read_address
from simulation.small import small_dataset, small_plan

TARGET = 0.3  # s of both servers for 1,000 phones of 10,000 numbers
LINEAR = 1.25  # a message's cost in the largest batch over that in the smallest
MODEL = "cd" * 32
Figures = dict[str, Any]


@dataclass
class Scene:
    """A helper's process, the coordinator that it trusts, and a plan of as many rounds as will be asked for."""

    home: HelperHome
    keys: tuple[SigningKey, SigningKey]
    plan: TrainingPlan
    pid: int
    spent: dict[str, float] = field(default_factory=dict)

    @property
    def second(self) -> SecondServer:
        """The line to the process."""
        address = read_address(self.home.path)
        public = bytes.fromhex(address.signing_key)
        line = HttpsHelper(address.url, address.certificate, public, self.keys[0])
        return SecondServer(line, {keyid(public): public}, self.home.path / "refusals")

    def helper_cpu(self) -> float:
        """CPU seconds of the helper's process so far, all threads."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(each.read_text().split()[0]) for each in tasks) / 1e9

    def helper_peak_mb(self) -> float:
        """Its peak memory."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(each for each in lines if each.startswith("VmHWM")).split()[1]) / 1024


@contextmanager
def scene(phones: int, rounds: int) -> Iterator[Scene]:
    """A home, its process on a free port, and a signed plan for up to `phones` phones."""
    keys = SigningKey.generate(), SigningKey.generate()
    with tempfile.TemporaryDirectory() as folder:
        trust = {"coordinator": keys[0].public_bytes, "reviewer": keys[1].public_bytes}
        home = HelperHome.init(Path(folder) / "helper", trust)
        command = [sys.executable, "-m", "fl_server.review", "helper", "serve", str(home.path), "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        try:
            assert process.stdout is not None and "listening" in process.stdout.readline()
            yield Scene(home, keys, _plan(home, phones, rounds), process.pid)
        finally:
            process.terminate()
            process.wait(timeout=20)


def _plan(home: HelperHome, phones: int, rounds: int) -> TrainingPlan:
    plan = small_plan(small_dataset(200), rounds=rounds, phones=phones)
    key = home.hpke.public_bytes.hex()
    charges = tuple(replace(charge, noise_multiplier=4.0) for charge in plan.privacy.charges)
    private = replace(plan.privacy, mode="helper", helper_key=key, charges=charges, noise_source="os", delta=1e-6)
    return replace(plan, privacy=private)


def round_of(scene: Scene, number: int, phones: int, dim: int) -> Figures:
    """One release of `phones` messages of `dim` numbers."""
    context = Context(scene.plan.digest, "train", number, MODEL, dim)
    header = encode(MaskedHeader(MASKED_SCHEMA, scene.plan.digest, number, "train", 1, dim, MODEL).to_dict())
    units, source = np.arange(dim, dtype=np.int64) % 7, OsSource()
    total, seeds, phone, coordinator = np.zeros(dim, np.uint32), bytearray(), 0.0, 0.0
    for _ in range(phones):
        begun = time.process_time()
        message = shield(units, scene.home.hpke.public_bytes, context, source)
        vector = message.vector.astype("<u4", copy=False).tobytes()
        sent = time.process_time()
        MaskedHeader.from_dict(decode(header, max_bytes=4096))
        total = add([total, read_residues(vector, dim)], dim)
        seeds += b"".join(split_seeds(message.seed))
        phone, coordinator = phone + sent - begun, coordinator + time.process_time() - sent
    figures = _close(scene, context, total, bytes(seeds), phones * units)
    return {
        "phones": phones,
        "client_ms": phone / phones * 1e3,
        "bytes_up": len(header) + len(vector) + SEED_BYTES,
        **figures,
        "coordinator_s": figures["coordinator_s"] + coordinator,
        "servers_s": figures["coordinator_s"] + coordinator + figures["helper_s"],
    }


def _close(scene: Scene, context: Context, total: Any, seeds: bytes, expected: Any) -> Figures:
    """Ask, subtract, add noise; the sum is checked against what the phones sent."""
    charge = charge_of(scene.plan, "train")
    assert charge is not None
    sigma, second = share_sigma(scene.plan, charge), scene.second
    signed = sign(DOMAIN, scene.plan.to_dict(), scene.keys).to_bytes()
    helper, own, wall = scene.helper_cpu(), time.process_time(), time.perf_counter()
    request = BatchRequest(BATCH_SCHEMA, signed, context.round, "train", MODEL, context.dim, seeds)
    share = second.share(request, scene.plan.digest, noise_multiplier=charge.noise_multiplier, sigma=sigma)
    asked = time.perf_counter() - wall
    noised = unshield(total, share.residues()) + discrete_gaussian(sigma, context.dim, OsSource())
    own, helper = time.process_time() - own, scene.helper_cpu() - helper
    assert abs(noised - expected).max() < 12 * sigma < 2**31, "the release is not the sum of what was sent"
    return {
        "coordinator_s": own,
        "helper_s": helper,
        "ask_wall_s": asked,
        "request_bytes": len(request.to_bytes()),
        "share_bytes": len(share.share),
        "store_mb": sum(each.stat().st_size for each in scene.home.path.glob("helper.sqlite*")) / 1e6,
        "helper_peak_mb": scene.helper_peak_mb(),
    }


def measure(sizes: list[int], dim: int, repeats: int) -> Figures:
    """Each size `repeats` times (the largest once), the median by time of both servers; one warm-up round first."""
    asked = [size for size in sizes for _ in range(1 if size > 20_000 else repeats)]
    with scene(max(*sizes, 160_000), len(asked) + 1) as made:
        round_of(made, 1, 100, dim)
        rows = [round_of(made, number, size, dim) for number, size in enumerate(asked, 2)]
    by_size = {size: sorted((r for r in rows if r["phones"] == size), key=lambda r: r["servers_s"]) for size in sizes}
    return {"dim": dim, "rounds": [found[len(found) // 2] for found in by_size.values()]}


def exchange_us() -> float:
    """µs of one X25519 exchange, the best of 400."""
    private, public = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key()

    def once() -> float:
        begun = time.process_time()
        private.exchange(public)
        return time.process_time() - begun

    return min(once() for _ in range(400)) * 1e6


def report(figures: Figures) -> bool:
    """The table; whether every target is met."""
    names = (
        "phones",
        "phone ms",
        "bytes up",
        "coordinator s",
        "helper s",
        "servers s",
        "target",
        "wall s",
        "request MB",
    )
    print("  ".join(f"{name:>13}" for name in names))
    rows = figures["rounds"]
    for row in rows:
        row["target_s"] = TARGET * row["phones"] / 1000
        cells = (row["phones"], row["client_ms"], row["bytes_up"], row["coordinator_s"], row["helper_s"])
        ends = (row["servers_s"], row["target_s"], row["ask_wall_s"], row["request_bytes"] / 1e6)
        print("  ".join(f"{cell:>13,}" if isinstance(cell, int) else f"{cell:>13.3f}" for cell in (*cells, *ends)))
    first, last = (row["servers_s"] / row["phones"] for row in (rows[0], rows[-1]))
    figures["linear"] = last / first
    most = MAX_BATCH_BYTES // SEED_BYTES
    print(
        f"a message costs both servers {last * 1e6:.0f} µs in the largest batch, {last / first:.2f} of the smallest's;"
    )
    print(f"the helper's peak {rows[-1]['helper_peak_mb']:.0f} MB, its store {rows[-1]['store_mb']:.1f} MB; "
          f"a batch of 16 MiB holds about {most:,} messages; X25519 {figures['x25519_us']:.0f} µs")  # fmt: skip
    return all(row["servers_s"] <= row["target_s"] for row in rows) and last / first <= LINEAR


def main() -> int:
    """Print the table and one JSON line; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 and 2,000 phones, once each")
    parser.add_argument("--phones", default="1000,10000,100000")
    parser.add_argument("--dim", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    sizes = [1000, 2000] if args.quick else [int(size) for size in args.phones.split(",")]
    figures = measure(sizes, args.dim, 1 if args.quick else 3)
    figures["x25519_us"] = exchange_us()
    met = report(figures)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures))
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
