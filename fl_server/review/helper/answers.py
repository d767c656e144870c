"""The forms of what a helper says: signed shares, signed refusals and log entries (spec 13.6.3, 13.6.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fl_server.review.helper.judge import Refused, Wanted
from fl_server.review.helper.records import Kept
from model.contract.envelope import Signed, SigningKey, sign
from model.contract.masked import MAX_NAMED, REFUSAL_DOMAIN, SHARE_DOMAIN, Refusal, Share
from model.secagg.fixedpoint import Ring

NONE = "0" * 64
MAX_SENTENCE = 1000


@dataclass(frozen=True)
class Asked:
    """What a request claims to be about, for refusals and the log; zeros where it could not be read."""

    plan_digest: str = NONE
    kind: str = ""
    round: int = 0
    batch_digest: str = NONE
    phones: int = 0


def signed_share(key: SigningKey, kept: Kept, want: Wanted, residues: Ring) -> Signed:
    """The share of a reserved release: `residues` (dim,) are the masks' sum under the helper's noise."""
    share = Share(
        plan_digest=kept.plan_digest,
        round=kept.round,
        kind=kept.kind,
        model_digest=kept.model_digest,
        dim=kept.dim,
        batch_digest=kept.batch_digest,
        phones=kept.phones,
        noise_multiplier=want.charge.noise_multiplier,
        sigma=want.sigma,
        share=residues.astype("<u4", copy=False).tobytes(),
    )
    return sign(SHARE_DOMAIN, share.to_dict(), [key])


def signed_refusal(key: SigningKey, asked: Asked, refused: Refused, now: int) -> Signed:
    """Why there is no share, with the ids of at most MAX_NAMED messages to leave out; `now` in unix seconds."""
    refusal = Refusal(
        plan_digest=asked.plan_digest,
        round=asked.round,
        kind=asked.kind,
        batch_digest=asked.batch_digest,
        code=refused.code,
        sentence=one_line(str(refused)),
        when=now,
        messages=refused.messages[:MAX_NAMED],
    )
    return sign(REFUSAL_DOMAIN, refusal.to_dict(), [key])


def entry(
    event: str, asked: Asked, now: int, *, code: str = "", sentence: str = "", answer: str = ""
) -> dict[str, Any]:
    """A log entry: what happened to which batch of which plan; `answer` is the digest of what was signed.

    `release` is for the store to fill, where the event is a reservation: the digest of the row it keeps.
    """
    place = {"plan_digest": asked.plan_digest, "kind": asked.kind, "round": asked.round}
    batch = {"batch_digest": asked.batch_digest, "phones": asked.phones}
    told = {"code": code, "sentence": sentence, "answer": answer, "release": ""}
    return {"event": event, "when": now, **place, **batch, **told}


def one_line(sentence: str) -> str:
    """Printable and at most 1,000 characters: it may quote what a stranger wrote."""
    return "".join(each if each.isprintable() else " " for each in sentence)[:MAX_SENTENCE]
