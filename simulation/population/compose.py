"""One chunk of a population: its people, their risk, and every event of theirs (spec 4.7)."""

from __future__ import annotations

from dataclasses import dataclass

from fl_client.events import EventBatch, Table
from simulation.population import activity, outcomes, routine
from simulation.population.habits import habits
from simulation.population.hash import Ints
from simulation.population.latents import Person, people
from simulation.population.outcomes import Risk
from simulation.population.words import Chunk, chunk, table
from simulation.population.world import world


@dataclass(frozen=True)
class Made:
    """K phones: their events, who they are, and the true risk; only the events are the phones' own to see."""

    batch: EventBatch
    person: Person
    risk: Risk


def compose(seed: int, alpha: float, regime: str, numbers: Ints) -> Made:
    """The phones `numbers` (K ≤ 4,096,) of the world of `seed`."""
    place = world(seed, alpha)
    person = people(seed, place, numbers)
    risk = outcomes.risk(person, place, regime)
    here = chunk(seed, numbers, person.enrol, person.span)
    return Made(EventBatch(len(numbers), _tables(here, person, risk)), person, risk)


def _tables(here: Chunk, p: Person, risk: Risk) -> dict[str, Table]:
    h, n = habits(here.seed, p), activity.counts(here.seed, p)
    messages = [
        activity.message_words(here, n), routine.pay_words(here, p, h), routine.gig_words(here, h, n),
        routine.bounce_words(here, n), routine.emi_words(here, p, h),
    ]  # fmt: skip
    receipts = outcomes.labelled(here.seed, p, risk), outcomes.earlier(here.seed, p, risk)
    return {
        "app_session": activity.app_session(here, h, n),
        "browse": activity.browse(here, n),
        "sms": table("sms", messages, len(here), routine.SMS_COLUMNS),
        "upi": activity.upi(here, h, n, routine.subscription_words(here, p, h)),
        "bill": routine.bill(here, p, h),
        "topup": routine.topup(here, h, n),
        "charge": activity.charge(here, h, n),
        "device": routine.device(here, p, h),
        "mobility": activity.mobility(here, p, h),
        "form": routine.form(here, p, h, n),
        "own_app": routine.own_app(here, p, h),
        "outcome": routine.outcome(here, *receipts),
        "contact": activity.contact(here, n),
        "call": activity.call(here, n),
    }
