"""The reviewer's desk as a witness: it signs one roster an attempt and one list a sum, also after a restart (13.15)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from fl_server.review.durable import replace_file
from model.canonical import decode, encode
from model.contract.envelope import SigningKey
from model.contract.plan import TrainingPlan
from model.errors import ContractError, RoundError, RunError
from model.secagg.circle import pack, unpack
from model.secagg.context import Context
from model.secagg.messages import Advert
from model.secagg.terms import SurvivorList, Terms
from model.secagg.witness import LocalWitness

MAX_FILE = 1 << 26


class WitnessDesk:
    """A `Witness` of one plan, who keeps on disk what it signed before it hands out a signature.

    One file a sum lists what was signed for it, in order; a desk that opens it signs all of it again, which checks it
    again, and then goes on. RunError for a file that is damaged or cannot be written, RoundError for another plan.
    """

    def __init__(
        self, folder: Path, key: SigningKey, plan: TrainingPlan, enrolled: Collection[bytes] | None = None
    ) -> None:
        self._folder, self._plan = folder, plan
        self._inner = LocalWitness(key, Terms.of(plan, key.public_bytes), enrolled)
        self._entries: dict[Path, list[dict[str, Any]]] = {}

    def sign_roster(self, context: Context, attempt: int, adverts: Sequence[Advert]) -> bytes:
        """Signature over the roster of `adverts`; RoundError or SignatureError as `LocalWitness`."""
        path = self._opened(context)
        signature = self._inner.sign_roster(context, attempt, adverts)
        told = [advert.to_bytes() for advert in adverts]
        self._append(path, {"context": context.to_dict(), "attempt": attempt, "adverts": told})
        return signature

    def sign_list(self, survivors: SurvivorList, signatures: Mapping[int, bytes]) -> bytes:
        """Signature over a circle's one list; RoundError as `LocalWitness`."""
        path = self._opened(survivors.context)
        signature = self._inner.sign_list(survivors, signatures)
        lists = {"active": pack(survivors.active), "dead": pack(survivors.dead), "size": survivors.active.size}
        signed = {"places": list(signatures), "signatures": list(signatures.values())}
        head = {"context": survivors.context.to_dict(), "root": survivors.root, "group": survivors.group}
        self._append(path, {**head, **lists, **signed})
        return signature

    def _opened(self, context: Context) -> Path:
        if context.plan_digest != self._plan.digest:
            raise RoundError("this witness serves another plan; ask the reviewer of the plan that is run")
        path = self._folder / f"{context.round:05d}-{context.kind}.cbor"
        if path not in self._entries:
            self._entries[path] = []
            for entry in self._read(path):
                self._again(entry)
                self._entries[path].append(entry)
        return path

    def _again(self, entry: Mapping[str, Any]) -> None:
        context = Context.from_dict(entry["context"])
        if "adverts" in entry:
            self._inner.sign_roster(context, entry["attempt"], [Advert.from_bytes(data) for data in entry["adverts"]])
            return
        active, dead = (unpack(entry[name], entry["size"]) for name in ("active", "dead"))
        survivors = SurvivorList(context, entry["root"], entry["group"], active, dead)
        self._inner.sign_list(survivors, dict(zip(entry["places"], entry["signatures"], strict=True)))

    def _read(self, path: Path) -> list[dict[str, Any]]:
        if not path.exists():
            return []
        try:
            entries = decode(path.read_bytes(), max_bytes=MAX_FILE)
        except (ContractError, OSError) as error:
            raise RunError(f"the witness cannot read {path} ({error}); restore it from its backup") from error
        return list(entries)

    def _append(self, path: Path, entry: dict[str, Any]) -> None:
        entries = self._entries[path]
        if entry in entries:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(path, encode([*entries, entry]))
        except OSError as error:
            raise RunError(f"the witness cannot write {path} ({error.strerror}); free space") from error
        entries.append(entry)
