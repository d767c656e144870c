"""Pairwise masking with one server, said once: five steps of phones, five of the server (spec 13.9).

SecAgg+ (Bonawitz et al., CCS 2017; Bell et al., CCS 2020) with a witness for what must be one for all: the roster, from
whose signature the neighbour graph is drawn, and the list of survivors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from model.errors import ContractError, RoundError
from model.secagg.fixedpoint import Units
from model.secagg.pairwise_phone import PairwisePhone
from model.secagg.pairwise_server import Outbox, PairwiseServer

Drops = Mapping[str, Collection[str]]


def run_round(
    phones: Mapping[str, PairwisePhone],
    updates: Mapping[str, Units],
    server: PairwiseServer,
    drops: Drops | None = None,
) -> Units:
    """The sum (dim,) int64 of the updates of `server.counted`, exactly; RoundError if the attempt ends without one.

    `drops` names, by step, the phones that never answer it. A phone that refuses is as one that does not answer.
    """

    def ask(step: str, inbox: Mapping[str, bytes], answer: Callable[[str, bytes], bytes]) -> Outbox:
        outbox = {}
        for name, data in inbox.items():
            if name not in (drops or {}).get(step, ()):
                try:
                    outbox[name] = answer(name, data)
                except (RoundError, ContractError) as refusal:
                    server.refusals[name] = str(refusal)
        return outbox

    adverts = ask("advertise", dict.fromkeys(phones, b""), lambda name, _: phones[name].advertise())
    places = server.place(adverts)
    deals = ask("share", places, lambda name, data: phones[name].share(data))
    deliveries = server.deliver(deals)
    uploads = ask("upload", deliveries, lambda name, data: phones[name].upload(data, updates[name]))
    lists = server.survivors(uploads)
    agreements = ask("agree", lists, lambda name, data: phones[name].agree(data))
    certificates = server.certify(agreements)
    reveals = ask("unmask", certificates, lambda name, data: phones[name].unmask(data))
    return server.unmask(reveals)
