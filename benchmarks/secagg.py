"""Secure aggregation side by side: two servers, pairwise masking, and Flower's own SecAgg+, one after the other.

    python benchmarks/secagg.py [--quick] [--dim 10000] [--json FILE]

All times are CPU time of one thread in this process; a client's is the median over clients of all its steps. `pairwise`
is 1,000 phones, degree 68, threshold 43, a tenth lost at upload. Flower's client is timed through the four functions of
its own mod with 101 shares, on the same number of coordinates; its shuffling of messages is left out. Exit code 1 if a
target is missed. How long one X25519 exchange takes is printed beside, for machines differ.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from model.contract.envelope import SigningKey
from model.contract.promise import Neighbours
from model.contract.sealed import RecipientKey
from model.privacy.noise import OsSource, discrete_gaussian
from model.secagg.context import Context
from model.secagg.pairwise import run_round
from model.secagg.pairwise_phone import PairwisePhone
from model.secagg.pairwise_server import PairwiseServer
from model.secagg.terms import Terms
from model.secagg.two_server import add, open_seeds, share_of, shield, unshield
from model.secagg.witness import LocalWitness

STEPS = ("advertise", "share", "upload", "agree", "unmask")
SERVES = ("place", "deliver", "survivors", "certify", "unmask")
Figures = dict[str, Any]


def clock(call: Callable[[], Any]) -> tuple[float, Any]:
    """(CPU seconds, result)."""
    begun = time.process_time()
    result = call()
    return time.process_time() - begun, result


def exchange_us() -> float:
    """µs of one X25519 exchange, the best of 400."""
    private, public = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key()
    return min(clock(lambda: private.exchange(public))[0] for _ in range(400)) * 1e6


def helper(phones: int, dim: int) -> Figures:
    """Two servers: one message a phone, then both servers' sums and noise."""
    key, source = RecipientKey.generate(), OsSource()
    context = Context("ab" * 32, "train", 0, "cd" * 32, dim)
    units, seconds, vector, seeds = np.arange(dim, dtype=np.int64), [], np.zeros(dim, np.uint32), []
    server = 0.0
    for _ in range(phones):
        spent, message = clock(lambda: shield(units, key.public_bytes, context, source))
        added, vector = clock(lambda message=message, vector=vector: add([vector, message.vector], dim))
        seconds.append(spent)
        seeds.append(message.seed)
        server += added
    masked, masks = clock(lambda: open_seeds(seeds, key, context))
    shared, share = clock(lambda: share_of(masks, discrete_gaussian(2.0**20, dim, source)))
    ended, total = clock(lambda: unshield(vector, share) + discrete_gaussian(2.0**20, dim, source))
    assert abs(total - phones * units).max() < 2**25
    return {
        "phones": phones,
        "client_ms": statistics.median(seconds) * 1e3,
        "bytes_up": 4 * dim + len(seeds[0]),
        "coordinator_s": server + ended,
        "helper_s": masked + shared,
        "servers_s": server + ended + masked + shared,
    }


def timed(kind: type, names: tuple[str, ...], spent: dict[str, list[float]], sizes: dict[str, list[Any]]) -> type:
    """`kind` with the CPU time of the named methods written down, and the bytes in and out of the last argument."""

    def wrap(name: str) -> Callable[..., Any]:
        inner = getattr(kind, name)

        def method(self: Any, *args: Any) -> Any:
            seconds, result = clock(lambda: inner(self, *args))
            spent[name].append(seconds)
            sizes[name].append((len(result), len(args[0]) if args and isinstance(args[0], bytes) else 0))
            return result

        return method

    return type(kind.__name__, (kind,), {name: wrap(name) for name in names})


def pairwise(phones: int, dim: int, degree: int, threshold: int, lost: float) -> Figures:
    """One server: a whole round, every message through bytes. The witness's time is apart from the server's."""
    spent: dict[str, list[float]] = defaultdict(list)
    sizes: dict[str, list[Any]] = defaultdict(list)
    served: dict[str, list[float]] = defaultdict(list)
    signed: dict[str, list[float]] = defaultdict(list)
    key = SigningKey.generate()
    terms = Terms(Neighbours(degree, threshold, 0.02, lost), phones // 2, 1, key.public_bytes)
    context = Context("ab" * 32, "train", 0, "cd" * 32, dim)
    phone_kind = timed(PairwisePhone, STEPS, spent, sizes)
    server_kind = timed(PairwiseServer, SERVES, served, defaultdict(list))
    witness = timed(LocalWitness, ("sign_roster", "sign_list"), signed, defaultdict(list))(key, terms)
    cast = {f"n{i}": phone_kind(SigningKey.generate(), context, terms) for i in range(phones)}
    updates = {name: np.full(dim, i, np.int64) for i, name in enumerate(cast)}
    server = server_kind(context, terms, witness)
    drops = {"upload": set(random.Random(1).sample(sorted(cast), int(phones * lost)))}
    total = run_round(cast, updates, server, drops)
    assert (total == sum(updates[name] for name in server.counted)).all()
    by_step = {step: statistics.median(spent[step]) * 1e3 for step in STEPS}
    up = {step: statistics.median(size for size, _ in sizes[step]) for step in STEPS}
    down = {step: statistics.median(size for _, size in sizes[step]) for step in STEPS}
    seen = sum(map(sum, signed.values()))
    return {
        "phones": phones,
        "degree": degree,
        "threshold": threshold,
        "lost": lost,
        "client_ms": sum(by_step.values()),
        "client_ms_by_step": by_step,
        "bytes_up": sum(up.values()),
        "bytes_up_by_step": up,
        "bytes_down": sum(down.values()),
        "server_s": sum(map(sum, served.values())) - seen,
        "server_s_by_step": {step: sum(served[step]) for step in SERVES},
        "witness_s": seen,
    }


def flower(shares: int, dim: int, runs: int) -> Figures:
    """Flower's SecAgg+ client: set-up, sharing, masking, unmasking, of `shares` neighbours (itself among them)."""
    for name in ("FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"):
        os.environ[name] = "0" if "TELEMETRY" in name else "1"
    mod = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
    return {"shares": shares, "client_ms": statistics.median(_flower_ms(mod, shares, dim) for _ in range(runs))}


def _flower_ms(mod: Any, shares: int, dim: int) -> float:
    names = importlib.import_module("flwr.common.secure_aggregation.secaggplus_constants")
    key, stage = names.Key, names.Stage
    from flwr.common import ndarrays_to_parameters

    state, seconds = mod.SecAggPlusState(), 0.0
    state.nid = 1
    settings = {
        key.SAMPLE_NUMBER: shares,
        key.SHARE_NUMBER: shares,
        key.THRESHOLD: shares * 2 // 3,
        key.CLIPPING_RANGE: 8.0,
        key.TARGET_RANGE: 1 << 22,
        key.MOD_RANGE: 1 << 32,
        key.MAX_WEIGHT: 1000.0,
    }
    spent, mine = clock(lambda: mod._setup(state, settings))
    seconds += spent
    others = {nid: (mod.generate_key_pairs(), mod.generate_key_pairs()) for nid in range(2, shares + 1)}
    keys = {str(nid): [mod.public_key_to_bytes(pair[1]) for pair in pairs] for nid, pairs in others.items()}
    keys["1"] = [mine[key.PUBLIC_KEY_1], mine[key.PUBLIC_KEY_2]]
    spent, dealt = clock(lambda: mod._share_keys(state, keys))
    seconds += spent
    assert len(dealt[key.DESTINATION_LIST]) == shares - 1
    plain = (state.rd_seed_share_dict[1], state.sk1_share_dict[1])  # of the size of anyone's
    sealed = [
        mod.encrypt(state.ss2_dict[nid], importlib.import_module(mod.share_keys_plaintext_concat.__module__)
                    .share_keys_plaintext_concat(nid, 1, *plain))
        for nid in others
    ]  # fmt: skip
    parameters = ndarrays_to_parameters([np.linspace(-1, 1, dim)])
    inbox = {key.CIPHERTEXT_LIST: sealed, key.SOURCE_LIST: list(others)}
    spent, _ = clock(lambda: mod._collect_masked_vectors(state, inbox, 1000, parameters))
    seconds += spent
    gone = shares // 10
    lists = {key.ACTIVE_NODE_ID_LIST: list(range(1, shares + 1 - gone)),
             key.DEAD_NODE_ID_LIST: list(range(shares + 1 - gone, shares + 1))}  # fmt: skip
    spent, _ = clock(lambda: mod._unmask(state, lists))
    assert stage.UNMASK
    return (seconds + spent) * 1e3


def main() -> int:
    """Print a table and one JSON line; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--dim", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    figures: Figures = {"dim": args.dim, "x25519_us_before": exchange_us()}
    figures["helper"] = [helper(phones, args.dim) for phones in ((1000,) if args.quick else (1000, 10_000))]
    figures["pairwise"] = [pairwise(1000, args.dim, 68, 43, 0.1)]
    if not args.quick:
        figures["pairwise"] += [pairwise(300, args.dim, 56, 36, 0.1), pairwise(100, args.dim, 99, 67, 0.1)]
    figures["flower"] = flower(101, args.dim, 1 if args.quick else 3)
    figures["x25519_us_after"] = exchange_us()
    rows = report(figures)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures))
    return int(any(missed for *_, missed in rows))


def report(figures: Figures) -> list[tuple[str, str, str, bool]]:
    """The table: what, figure, target, whether missed."""
    two, pair, other = figures["helper"][0], figures["pairwise"][0], figures["flower"]["client_ms"]
    rows = [
        _row("helper, client, ms", two["client_ms"], 0.5),
        _row("helper, bytes up", two["bytes_up"], 41_000),
        *(_row(f"helper, both servers, {row['phones']} phones, s", row["servers_s"], 0.3 * row["phones"] / 1000)
          for row in figures["helper"]),
        _row("pairwise, client, ms", pair["client_ms"], 15),
        _row("pairwise, bytes up", pair["bytes_up"], 60_000),
        _row("pairwise, server, s", pair["server_s"], 2),
        *((f"pairwise, {row['phones']} phones of degree {row['degree']}: client ms, server s",
           f"{row['client_ms']:.1f}, {row['server_s']:.2f}", "", False) for row in figures["pairwise"][1:]),
        ("pairwise, witness, s", f"{pair['witness_s']:.2f}", "", False),
        ("Flower SecAgg+, client, ms", f"{other:.0f}", "", False),
        _row("Flower's client time over pairwise's", other / pair["client_ms"], 100, above=True),
        _row("Flower's client time over helper's", other / two["client_ms"], 2000, above=True),
    ]  # fmt: skip
    for what, figure, target, missed in rows:
        print(f"{what:58} {figure:>12}  {target:>10}  {'missed' if missed else ''}")
    return rows


def _row(what: str, figure: float, target: float, above: bool = False) -> tuple[str, str, str, bool]:
    missed = figure < target if above else figure > target
    return what, f"{figure:,.2f}" if figure < 1e4 else f"{figure:,.0f}", f"{'≥' if above else '≤'} {target:g}", missed


if __name__ == "__main__":
    sys.exit(main())
