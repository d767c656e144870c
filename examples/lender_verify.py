"""Open, verify and de-duplicate sealed scores with `model.contract` alone: neither torch nor Flower is imported.

    python examples/lender_verify.py LENDER_HOME ENVELOPE_FILE… [--seen seen.sqlite]

This is the smallest lender there is: it shows what any lender's own system must do with an envelope. The full one
(consent receipts, decisions, HTTP) is `pocketscore-server lender`. LENDER_HOME is what `lender init` made.
Prints one JSON line a file; exit status 1 if any envelope was refused.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

from model.contract.envelope import Signed, verify
from model.contract.release import DOMAIN, ReleaseManifest
from model.contract.score import ScoreEnvelope, open_score
from model.contract.sealed import RecipientKey
from model.errors import AudienceError, IntakeError, PocketScoreError, ReplayError


def trusted_models(home: Path) -> set[str]:
    """Digests of the models whose manifests every trusted release key has signed."""
    ring = {name: bytes.fromhex(key) for name, key in json.loads((home / "trust.json").read_text()).items()}
    signed = [Signed.from_bytes(path.read_bytes()) for path in sorted((home / "releases").glob("*.cbor"))]
    payloads = [verify(each, DOMAIN, ring, threshold=2, required=ring) for each in signed]
    return {ReleaseManifest.from_dict(payload).model_digest for payload in payloads}


def open_for(data: bytes, key: RecipientKey, purposes: list[str], audience: str, now: int) -> ScoreEnvelope:
    """Open under one of the lender's purposes; the info of the seal binds purpose and audience."""
    for purpose in purposes:
        try:
            return open_score(data, key, purpose=purpose, audience=audience, now=now)
        except AudienceError:
            continue
    raise AudienceError(f"this envelope was not sealed to {audience}; ask for one that is")


def remember(seen: sqlite3.Connection, envelope: ScoreEnvelope) -> str:
    """Store (device, counter) in one transaction: new is accepted, identical is a duplicate, else a replay."""
    with seen:
        seen.execute("BEGIN IMMEDIATE")
        query = "SELECT digest FROM seen WHERE device = ? AND (counter = ? OR nonce = ?)"
        row = (envelope.device_key, envelope.counter, envelope.nonce)
        found = {digest for (digest,) in seen.execute(query, row)}
        if found and found != {envelope.digest}:
            raise ReplayError(f"counter {envelope.counter} was used for another score; ask for a new one")
        if not found:
            seen.execute("INSERT INTO seen VALUES (?, ?, ?, ?)", (*row, envelope.digest))
    return "duplicate" if found else "accepted"


def answers(home: Path, files: list[Path], seen: sqlite3.Connection, now: int) -> Iterator[dict[str, object]]:
    """One answer a file."""
    told = tomllib.loads((home / "lender.toml").read_text())
    key = RecipientKey.from_private_bytes((home / "keys" / "hpke.key").read_bytes())
    models = trusted_models(home)
    for path in files:
        try:
            envelope = open_for(path.read_bytes(), key, told["purposes"], told["audience"], now)
            if envelope.model_digest not in models:
                raise IntakeError("this score is of a model without two signatures; ask for one of a release")
            status = remember(seen, envelope)
            yield {"file": path.name, "status": status, "score": envelope.score, "band": envelope.band}
        except PocketScoreError as error:
            yield {"file": path.name, "status": "refused", "error": type(error).__name__, "sentence": str(error)}


def main() -> int:
    """Read the command line; 0 when every envelope was taken or is a known duplicate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--seen", default="seen.sqlite", help="where used counters are kept")
    given = parser.parse_args()
    missing = [path for path in (given.home / "lender.toml", *given.files) if not path.is_file()]
    if missing:
        print(f"{missing[0]} is not a file; name a lender's home and its envelopes", file=sys.stderr)
        return 2
    seen = sqlite3.connect(given.seen, isolation_level=None)
    seen.execute("CREATE TABLE IF NOT EXISTS seen (device TEXT, counter INT, nonce TEXT, digest TEXT)")
    lines = list(answers(given.home, given.files, seen, int(time.time())))
    seen.close()
    print("\n".join(json.dumps(line) for line in lines))
    return int(any(line["status"] == "refused" for line in lines))


if __name__ == "__main__":
    heavy = sorted({"torch", "flwr"} & set(sys.modules))
    if heavy:
        raise SystemExit(f"{heavy[0]} was imported; this example must do without")
    sys.exit(main())
