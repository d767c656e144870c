"""Who agreed: the consent receipt, with the fields of ISO/IEC TS 27560 (consent/1, spec 3.5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from model.contract.record import Record, require
from model.errors import ConsentError

DOMAIN = "consent/1"


@dataclass(frozen=True)
class ConsentReceipt(Record):
    """One person's consent to one purpose and audience. Times are Unix seconds.

    TS 27560 in its words: record id, purpose, recipient (`audience`), PII categories (`data_categories`),
    collection sources asked for and the answer to each (`sources_allowed`, `sources_denied`), policy,
    event times, notice `language`, PII `controller`. A source in neither list was not asked for.
    """

    consent_id: str
    purpose: str
    audience: str
    data_categories: tuple[str, ...]
    sources_allowed: tuple[str, ...]
    sources_denied: tuple[str, ...]
    policy_pack: str
    given_at: int
    expires_at: int
    withdrawn_at: int | None
    language: str
    controller: str

    def check(self) -> None:
        """ContractError for an empty text, a source both allowed and denied, or times out of order."""
        texts = (self.consent_id, self.purpose, self.audience, self.policy_pack, self.language, self.controller)
        require(all(0 < len(t) <= 256 for t in texts), "a consent receipt has an empty or overlong text; ask again")
        both = sorted(set(self.sources_allowed) & set(self.sources_denied))
        require(not both, f"a consent receipt both allows and denies {', '.join(both)}; ask again")
        require(0 <= self.given_at < self.expires_at, "a consent receipt expires before it is given; ask again")
        require(self.withdrawn_at is None or self.withdrawn_at >= self.given_at, "a consent is withdrawn before given")

    def withdrawn(self, at: int) -> ConsentReceipt:
        """The same receipt, withdrawn at `at`; the first withdrawal stays."""
        return self if self.withdrawn_at is not None else replace(self, withdrawn_at=max(at, self.given_at))

    def require(self, purpose: str, audience: str, now: int) -> None:
        """ConsentError unless this receipt covers `purpose` and `audience` at time `now`."""
        if (self.purpose, self.audience) != (purpose, audience):
            raise ConsentError(f"there is no consent to {purpose} for {audience}; ask the person first")
        if self.withdrawn_at is not None:
            raise ConsentError(f"consent to {purpose} for {audience} was withdrawn; ask the person before going on")
        if not self.given_at <= now < self.expires_at:
            raise ConsentError(f"consent to {purpose} for {audience} is not in force now; ask the person again")
