"""How far a helper's log had come, kept beside its store: a store that was emptied does not pass for a new one.

The mark is a copy of the log's signed head, written after each change to the store and before anybody is answered. So
it is never ahead of a store that is whole, and at most the last, unanswered change behind it (spec 13.6.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fl_server.review.durable import replace_file
from model.contract.envelope import Signed, keyid, verify
from model.errors import ContractError, RunError

HEAD = "helper-head/1"
NAME = "served.head"


def damaged(store: Path, what: str) -> RunError:
    """The error for a store that nothing is served from: which, what is wrong with it, and what to do."""
    return RunError(f"the helper's store {store} {what}; serve no more from it, make a new home with new keys")


def keep_mark(store: Path, head: bytes) -> None:
    """Keep the log's signed head beside `store`, on disk when this returns; OSError where it cannot be."""
    replace_file(store.with_name(NAME), head)


def read_mark(store: Path, public: bytes) -> dict[str, Any]:
    """The head that was kept beside `store`, empty where nothing ever was; RunError for one `public` did not sign."""
    try:
        return read_head(store.with_name(NAME).read_bytes(), public)
    except FileNotFoundError:
        return {}
    except (OSError, ContractError) as error:
        raise damaged(store, f"has a mark {NAME} that cannot be read ({error})") from error


def read_head(signed: bytes, public: bytes) -> dict[str, Any]:
    """`{size, digest}` of a signed head; ContractError for one that `public` did not sign."""
    head = verify(Signed.from_bytes(signed), HEAD, {keyid(public): public})
    if set(head) != {"size", "digest"} or type(head["size"]) is not int:
        raise ContractError("a head of a log names other things than its size and digest; make a new home")
    return head


def require_mark(store: Path, mark: Mapping[str, Any], digests: Sequence[str]) -> None:
    """RunError unless the log, by the `digests` of its entries, goes through the head that the mark names."""
    size = mark.get("size", 0)
    if size > len(digests):
        raise damaged(store, f"has {len(digests)} log entries, though {size} were answered for")
    if size and digests[size - 1] != mark["digest"]:
        raise damaged(store, f"has another log than the one its mark {NAME} was made for")
