"""Phones score themselves with the released file and send sealed envelopes to a lender in a process of its own."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fl_client.device import Phone, score_phone
from fl_client.egress import Departure, MemoryEgress
from fl_client.events import SEALED, EventBatch, to_columns
from fl_client.features import extract
from fl_client.home import DeviceHome, Settings
from fl_client.identity import LenderCard
from fl_client.scoring import MIN_OBSERVED_DAYS, OBSERVED_DAYS, Scorer
from fl_client.trusted import TrustedRelease
from model.errors import NoScore, RunError
from model.risk.schema import Schema
from simulation.dataset import Dataset
from simulation.experiment.folder import RunFolder
from simulation.experiment.lender import Lender, deliver
from simulation.experiment.outcome import Outcome
from simulation.experiment.releasing import lender_keyring
from simulation.experiment.request import Progress, Request
from simulation.experiment.sources import population_of
from simulation.pocket import pocketed
from simulation.population.generate import TODAY, events, events_range

PURPOSE = "personal-loan"
POSTED = 512  # phones whose messages travel together
BLOCK = 64  # phones made together: cheaper than one by one, and the same bits


@dataclass
class Scores:
    """What left the phones: sealed bytes by kind, egress lines, times in µs, and how many had no score."""

    consents: list[bytes] = field(default_factory=list)
    envelopes: list[bytes] = field(default_factory=list)
    departures: list[Departure] = field(default_factory=list)
    model_us: list[float] = field(default_factory=list)
    total_us: list[float] = field(default_factory=list)
    without: dict[str, int] = field(default_factory=dict)

    @property
    def sent_bytes(self) -> int:
        """Bytes that were handed to the lender."""
        return sum(map(len, self.consents)) + sum(map(len, self.envelopes))


@dataclass(frozen=True)
class Lent:
    """What came of it at the lender."""

    scores: Scores = field(default_factory=Scores)
    opened: int = 0
    decisions: dict[str, int] = field(default_factory=dict)


def lend(outcome: Outcome, lender: Lender, card: bytes, progress: Progress) -> Lent:
    """Score the phones, deliver to the lender's process, let it decide, and leave one device home behind."""
    place, request, data = outcome.place, outcome.request, outcome.source.data
    published = outcome.released.published
    if published is None or not request.scored:
        return Lent()
    lender.forget()
    lender.trust(place.partial / "release" / "manifest.cbor", lender_keyring(place))
    home = leave_home(place, request, data, published.root, card, outcome.now)
    release = DeviceHome(home).trusted.load(outcome.now)
    with lender.serving(place.partial / "logs" / "lender.log") as url, Post(url) as post:
        scores = score_phones(request, data, release, card, outcome.now, progress, post.take)
        answers = post.answers()
    refused = [answer for answer in answers if answer["status"] != "accepted"]
    if refused:
        raise RunError(f"the lender refused {len(refused)} envelopes ({refused[0]['sentence']}); see its log")
    decisions = Counter(str(document["outcome"]) for document in lender.decide())
    return Lent(scores, len(answers), dict(decisions))


class Post:
    """Carries what has been scored to the lender while the next phones score; consents travel before their scores."""

    def __init__(self, url: str) -> None:
        self._url, self._pool = url, ThreadPoolExecutor(1)
        self._consents, self._envelopes = 0, 0
        self._told: list[Future[list[dict[str, Any]]]] = []
        self._sent: list[Future[list[dict[str, Any]]]] = []

    def __enter__(self) -> Post:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self, scores: Scores) -> None:
        """Send what `scores` holds beyond what was sent."""
        consents, envelopes = scores.consents[self._consents :], scores.envelopes[self._envelopes :]
        self._consents, self._envelopes = len(scores.consents), len(scores.envelopes)
        self._told.append(self._pool.submit(deliver, self._url, consents))
        self._sent.append(self._pool.submit(deliver, self._url, envelopes))

    def answers(self) -> list[dict[str, Any]]:
        """The lender's answer to every score, in order, once it has them all; RunError if it stopped answering."""
        for told in self._told:
            told.result()
        return [answer for sent in self._sent for answer in sent.result()]


def score_phones(
    request: Request,
    data: Dataset,
    release: TrustedRelease,
    card_bytes: bytes,
    now: int,
    progress: Progress,
    post: Callable[[Scores], None] = lambda scores: None,
) -> Scores:
    """Score phones until `request.scored` of them have a score; a typed "no score" is counted, not hidden.

    `post` is shown all there is so far, whenever another POSTED phones are through.
    """
    card = LenderCard.read(card_bytes, now)
    scorer = Scorer(release.onnx, release.manifest, data.schema)
    day = TODAY if request.table is None else None
    scores, wanted = Scores(), min(request.scored, data.phones)
    for phone in phones(request, data):
        if len(scores.envelopes) >= wanted:
            break
        _score_one(phone, scorer, card, scores, now, day)
        progress("scores", len(scores.envelopes), wanted)
        if len(scores.consents) % POSTED == 0:
            post(scores)
    post(scores)
    return scores


def phones(request: Request, data: Dataset) -> Iterator[Phone]:
    """Every phone as a device, in blocks spread evenly over the population (a table: those with a row)."""
    blocks = max(data.phones // BLOCK, 1)
    stride = next(step for step in range(max(int(blocks * 0.618), 1), blocks + 2) if math.gcd(step, blocks) == 1)
    for turn in range(blocks):
        at = turn * stride % blocks
        first, last = at * BLOCK, data.phones if at == blocks - 1 else (at + 1) * BLOCK
        yield from _made_up(request, data.schema, first, last) if request.table is None else _of_rows(data, first, last)


def _made_up(request: Request, schema: Schema, first: int, last: int) -> Iterator[Phone]:
    """Their features are taken from their raw events together: the same bits as one by one, many times faster."""
    batch = events_range(population_of(request), first, last)
    open_to_all = {kind: table for kind, table in batch.tables.items() if kind not in SEALED}
    features = extract(EventBatch(batch.phones, open_to_all), schema, np.full(batch.phones, TODAY))
    for row in features.tolist():
        yield pocketed(dict(zip(schema.names, row, strict=True)))


def _of_rows(data: Dataset, first: int, last: int) -> Iterator[Phone]:
    for number in range(first, last):
        if data.counts[number]:
            yield pocketed(_row(data, number))


def _score_one(phone: Phone, scorer: Scorer, card: LenderCard, scores: Scores, now: int, day: int | None) -> None:
    egress = MemoryEgress(now)
    consents = phone.consents(card)
    pack = scorer.manifest["policy_pack"]
    receipt = consents.give(scorer.schema, card, purpose=PURPOSE, policy_pack=pack, now=now)
    scores.consents.append(consents.release(receipt, card, egress))
    try:
        scored = score_phone(phone, scorer, card, egress, now=now, purpose=PURPOSE, start_day=day)
    except NoScore as none:
        scores.without[none.code] = scores.without.get(none.code, 0) + 1
    else:
        scores.envelopes.append(scored.sealed)
        scores.model_us.append(scored.model_us)
        scores.total_us.append(scored.total_us)
    scores.departures += egress.lines()


def scorable(data: Dataset) -> int:
    """The first phone with a row, and where it is told, with enough observed days to be scored."""
    enough = np.ones(len(data.y), dtype=bool)
    if OBSERVED_DAYS in data.schema.names:
        enough = data.x[:, data.schema.index(OBSERVED_DAYS)] >= MIN_OBSERVED_DAYS
    row = int(np.argmax(enough))
    return int(np.searchsorted(data.offsets, row, side="right") - 1)


def _row(data: Dataset, number: int) -> dict[str, float]:
    """The phone's last labelled row by feature name, missing cells left out."""
    row = data.x[data.offsets[number + 1] - 1]
    return {name: float(value) for name, value in zip(data.schema.names, row.tolist(), strict=True) if value == value}


def leave_home(place: RunFolder, request: Request, data: Dataset, root: bytes, card: bytes, now: int) -> Path:
    """One device's home, synced and consented, to go on with after the run."""
    number = scorable(data)
    path = place.private / "phone"
    shutil.rmtree(path, ignore_errors=True)  # an interrupted run may have left one
    home = DeviceHome.create(
        path,
        repo=str(place.out / "tuf"),
        root=root,
        cards=[card],
        now=now,
        schema=data.schema,
        settings=Settings(str(place.out / "tuf"), epoch_day=now // 86_400 - TODAY),
    )
    if request.table is None:
        for kind, columns in to_columns(events(population_of(request), number)).items():
            home.store.append_events(kind, columns)
    else:
        home.store.put_row(_row(data, number))
    home.trusted.update(place.partial / "tuf", now=now)
    read = LenderCard.read(card, now)
    phone = Phone(home.store, home.secret)
    manifest = home.trusted.load(now).manifest
    consents = phone.consents(read)
    receipt = consents.give(data.schema, read, purpose=PURPOSE, policy_pack=manifest["policy_pack"], now=now)
    home.post("consent", consents.release(receipt, read, home.egress(now)))
    home.store.close()
    return path
