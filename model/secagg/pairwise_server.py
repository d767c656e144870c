"""The server in pairwise masking: from nodes to places on circles, one step for each of theirs (spec 13.9.7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from model.errors import ContractError, RoundError, SignatureError
from model.secagg.circle import circles, order_seed
from model.secagg.circle_server import CircleServer
from model.secagg.context import Context
from model.secagg.fixedpoint import Units
from model.secagg.graph import require_private
from model.secagg.messages import Advert
from model.secagg.pairs import low_order
from model.secagg.roster import Roster, entries_of, verify_advert
from model.secagg.terms import Terms
from model.secagg.witness import Witness

Inbox = Mapping[str, bytes]
Outbox = dict[str, bytes]
Step = Callable[[CircleServer, dict[int, bytes]], dict[int, bytes]]


class PairwiseServer:
    """One attempt at one sum. Every step takes what came, by node, and gives what each remaining node is sent next.

    Nodes that are silent are lost; nodes whose messages are wrong are lost and named in `reports`. A circle that cannot
    go on is named in `ended` with its reason; RoundError when none is left. `refusals` is where a driver in process
    writes what phones said when they refused; over a wire a refusal looks like silence.
    """

    def __init__(self, context: Context, terms: Terms, witness: Witness, attempt: int = 0) -> None:
        self.context, self.terms, self.witness, self.attempt = context, terms, witness, attempt
        self.reports: dict[str, str] = {}
        self.refusals: dict[str, str] = {}
        self.ended: dict[int, str] = {}
        self._circles: list[CircleServer] = []
        self._names: dict[tuple[int, int], str] = {}
        self._places: dict[str, tuple[int, int]] = {}

    def place(self, adverts: Inbox) -> Outbox:
        """Adverts → Places: the roster is fixed and witnessed, then the order is known."""
        known = self._verified(adverts)
        roster = Roster.of(known.values())
        require_private(len(roster.entries), self.terms.neighbours)
        signature = self.witness.sign_roster(self.context, self.attempt, list(known.values()))
        names = {advert.entry: name for name, advert in known.items()}
        found = circles(order_seed(roster.root, signature), len(names), self.terms.neighbours.degree)
        for group, circle in enumerate(found):
            entries = entries_of(circle, roster)
            phones = len(roster.entries)
            self._circles.append(CircleServer(self.context, self.terms, circle, group, roster.root, phones, entries))
            self._names |= {(group, position): names[entry] for position, entry in entries.items()}
        self._places = {name: place for place, name in self._names.items()}
        places = self._names.items()
        return {name: roster.place(found[group], at, signature).to_bytes() for (group, at), name in places}

    def deliver(self, deals: Inbox) -> Outbox:
        """Deals → Deliveries."""
        return self._step(deals, CircleServer.deliver)

    def survivors(self, uploads: Inbox) -> Outbox:
        """Uploads → Survivors."""
        return self._step(uploads, CircleServer.survivors)

    def certify(self, agreements: Inbox) -> Outbox:
        """Agreements → Certificates."""
        return self._step(agreements, lambda circle, inbox: circle.certify(inbox, self.witness))

    def unmask(self, reveals: Inbox) -> Units:
        """Reveals → the sum over the circles that came through, (dim,) int64, each under its own phones' noise."""
        sums: list[Units] = []

        def settle(circle: CircleServer, inbox: dict[int, bytes]) -> dict[int, bytes]:
            sums.append(circle.unmask(inbox))
            return {}

        self._step(reveals, settle)
        total: Units = sum(sums[1:], start=sums[0])
        return total

    @property
    def counted(self) -> list[str]:
        """Nodes in the sum."""
        groups = [group for group in range(len(self._circles)) if group not in self.ended]
        return [self._names[group, p] for group in groups for p in self._circles[group].active]

    def _verified(self, adverts: Inbox) -> dict[str, Advert]:
        """Adverts by node, without those badly signed or with a key that an earlier node has (case 37)."""
        known: dict[str, Advert] = {}
        seen: set[bytes] = set()
        for name, data in adverts.items():
            try:
                advert = Advert.from_bytes(data)
                verify_advert(advert, self.context, self.attempt)
            except (ContractError, SignatureError) as error:
                self.reports[name] = str(error)
                continue
            keys = {advert.identity, advert.channel, advert.mask}
            if len(keys) < 3 or keys & seen or low_order(advert.channel) or low_order(advert.mask):
                self.reports[name] = "its keys are another's, not three, or of low order; it is left out"
                continue
            known[name], seen = advert, seen | keys
        return known

    def _step(self, inbox: Inbox, step: Step) -> Outbox:
        outbox: Outbox = {}
        by_circle: dict[int, dict[int, bytes]] = {group: {} for group in range(len(self._circles))}
        for name, data in inbox.items():
            if name in self._places:
                group, position = self._places[name]
                by_circle[group][position] = data
        for group, messages in by_circle.items():
            if group in self.ended:
                continue
            try:
                answers = step(self._circles[group], messages)
                outbox |= {self._names[group, position]: data for position, data in answers.items()}
            except (RoundError, ContractError) as error:
                self.ended[group] = str(error)
            found = self._circles[group].reports
            self.reports |= {self._names[group, position]: why for position, why in found.items()}
        if len(self.ended) == len(self._circles):
            raise RoundError(next(iter(self.ended.values()), "a round without phones cannot go on; wait for some"))
        return outbox
