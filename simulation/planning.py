"""From a person's options to a plan that coordinator and reviewer can sign, or one sentence why not (spec 3.7).

Every default names its source: training and server settings are ADR 2's, δ and the full rounds are ADR 3's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from model.contract.plan import LocalTraining, ModelChoice, ServerOptimiser, TrainingPlan
from model.contract.promise import PrivacyPlan
from model.errors import BudgetError, InputError
from model.policy.rules import load_pack, require_allowed
from model.privacy.accountant import MAX_DELTA, calibrate, default_delta, released
from model.privacy.mechanism import GaussianRelease
from model.risk.knots import histogram_sensitivity
from model.risk.schema import Schema
from simulation.attendance import Reach
from simulation.dataset import Dataset

MIN_COHORT = 30
SHORT_OF_COHORT = 1e-6
SHARES = {"knots": 0.15, "training": 0.70, "calibration": 0.15}
DEFAULT_EPSILON = 1.5
LEAST_EPSILON = 0.01  # below, noise drowns every figure of any table
LEAST_DELTA = 1e-15  # below, nothing is left of a probability in float64 arithmetic
LEAST_NOISE, MOST_NOISE = 0.3, 10_000.0  # below, the accountant works for minutes to report an ε of hundreds
MODELS = {"additive": (), "mlp": (64, 32)}
CLIP = {"additive": 1.0, "mlp": 2.0}  # in training coordinates, where few phones are clipped (ADR 2)
RATE = {"additive": 16.0, "mlp": 1.5}
LARGE_COHORT, LITTLE_NOISE = 50_000, 5e-4  # from here on convergence limits the additive model, not noise (ADR 57)


@dataclass(frozen=True)
class Options:
    """What a person may choose about a run; None leaves the choice to the plan."""

    epsilon: float | None = None
    noise: float | None = None
    rounds: int = 20
    participation: float = 1.0
    model: str = "additive"
    seed: int = 0
    test_seeded: bool = False
    pack: str = "in-rbi-2025"
    name: str = "pocketscore"
    reach: Reach = field(default_factory=Reach)
    delta: float | None = None

    @property
    def asked(self) -> float:
        """Share of phones to ask in a round: what is wanted, times the over-selection, at most all."""
        return min(1.0, self.participation * self.reach.over_select)

    def __post_init__(self) -> None:
        if self.epsilon is not None and self.noise is not None:
            raise InputError("--epsilon and --noise both set the noise; give one of them")
        if self.epsilon is not None and not LEAST_EPSILON <= self.epsilon <= 100:
            raise InputError(f"--epsilon {self.epsilon:g} is outside {LEAST_EPSILON:g} to 100; 1 to 2 is usual")
        if self.noise is not None and self.noise != 0 and not LEAST_NOISE <= self.noise <= MOST_NOISE:
            raise InputError(
                f"--noise {self.noise:g} is neither 0 nor within {LEAST_NOISE:g} to {MOST_NOISE:g}; "
                "15 is usual for full rounds"
            )
        if self.delta is not None and not LEAST_DELTA <= self.delta <= MAX_DELTA:
            raise InputError(
                f"--delta {self.delta:g} is not within {LEAST_DELTA:g} to {MAX_DELTA:g}; leave it out if unsure"
            )
        if self.model not in MODELS:
            raise InputError(f"--model {self.model!r} is unknown; use {' or '.join(MODELS)}")
        if not 1 <= self.rounds <= 1000:
            raise InputError(f"--rounds {self.rounds} is outside 1 to 1000; 20 is usual")
        if not 0 < self.participation <= 1:
            raise InputError(f"--participation {self.participation:g} is outside 0 to 1; 1 asks every phone")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed {self.seed} is outside 0 to 2^63; use a smaller number of 0 or more")


def build_plan(data: Dataset, options: Options, *, unit: str, now: int, topology: str = "farm") -> TrainingPlan:
    """The plan of a simulated run over `data`. InputError for too few phones, PolicyError for a broken rule."""
    require_enough(data)
    held = int(data.holdout.sum())
    phones = data.phones - held
    response = expected_response(options)
    require_reached(min(phones, held), response)
    participation = cohort_share(phones * response, options.asked, options.rounds)
    delta = delta_of(options, phones)
    privacy = _privacy(data.schema, options, participation, delta, unit)
    cohort = phones * participation * response
    plan = TrainingPlan(
        name=options.name,
        purpose="credit risk scoring on the phone",
        created_at=now,
        schema=data.schema,
        review_features=tuple(f.name for f in data.schema.features if f.permission == "R"),
        policy_pack=options.pack,
        topology=topology,
        phones=phones,
        holdout_phones=held,
        min_cohort=MIN_COHORT,
        rounds=options.rounds,
        participation=participation,
        model=ModelChoice(options.model, MODELS[options.model], 16),
        local=LocalTraining(1, 1.0, 0, 0.0, clip_norm=CLIP[options.model]),
        server=server_optimiser(options.model, cohort, noise_of_mean(privacy, cohort)),
        privacy=privacy,
        seed=options.seed,
        simulation=True,
        response=response,
    )
    require_allowed(plan, load_pack(plan.policy_pack))
    return plan


def delta_of(options: Options, phones: int) -> float:
    """The δ asked for, or the default; InputError above it: a plan for so many phones would be refused."""
    most = default_delta(phones)
    if options.delta is not None and options.delta > most:
        raise InputError(
            f"--delta {options.delta:g} is above {most:g}, the most for {phones} phones; lower it or leave it out"
        )
    return most if options.delta is None else options.delta


def server_optimiser(model: str, cohort: float = 0.0, noise: float = math.inf) -> ServerOptimiser:
    """Momentum and averaging for both models; the MLP's weights are not preconditioned, so its rate is smaller.

    `noise` is the standard deviation of one coordinate of the mean update. Where the plan's own numbers say that a
    large cohort leaves little of it, the additive model moves faster and averages its last rounds only (ADR 57).
    """
    if model == "additive" and cohort >= LARGE_COHORT and noise <= LITTLE_NOISE:
        return ServerOptimiser("fedavg", 28.0, 0.6, 0.8, 0.0, 0.99, 1e-3)
    return ServerOptimiser("fedavg", RATE[model], 0.8, 0.5, 0.0, 0.99, 1e-3)


def noise_of_mean(privacy: PrivacyPlan, cohort: float) -> float:
    """Standard deviation of one coordinate of a round's mean update, in training coordinates; 0 without noise."""
    return sum(c.noise_multiplier * c.sensitivity for c in privacy.charges if c.name == "training") / cohort


def cohort_share(phones: float, asked: float, rounds: int) -> float:
    """The participation asked for, raised until all `rounds` cohorts reach their minimum but for a chance of 1e-6.

    `phones` are those expected to answer when all are asked. Each flips its own coin, so a cohort that reaches the
    minimum only on average misses it every other round.
    """
    return min(1.0, max(asked, safe_cohort(rounds) / phones))


def safe_cohort(rounds: int) -> float:
    """The mean cohort whose draws all reach the minimum. Chernoff: P(X ≤ m) ≤ exp(-(μ-m)²/2μ) for mean μ."""
    unlikely = math.log(rounds / SHORT_OF_COHORT)
    return MIN_COHORT + unlikely + math.sqrt(unlikely * (unlikely + 2 * MIN_COHORT))


def expected_response(options: Options) -> float:
    """The public share of asked phones expected to answer by the deadline; 1 where everybody does (ADR 58)."""
    who = options.reach.attendance(options.seed)
    return 1.0 if who is None else who.response(options.rounds)


def require_reached(fewest: int, response: float) -> None:
    """InputError where, of the smaller split, too few phones would answer for one release to be sure of its cohort."""
    if response < 1 and fewest * response < safe_cohort(1):
        raise InputError(
            f"about {fewest * response:.0f} of {fewest} phones would answer by the deadline, too few to be sure of a "
            f"cohort of {MIN_COHORT}; give a longer --deadline, fewer --faults or more phones"
        )


def require_enough(data: Dataset) -> None:
    """InputError where fewer phones than the minimum cohort would train, or be evaluated on."""
    held = int(data.holdout.sum())
    phones = data.phones - held
    if phones < MIN_COHORT:
        raise InputError(
            f"{phones + held} phones leave {phones} to train on, below the minimum cohort of {MIN_COHORT}; "
            f"bring at least {3 * MIN_COHORT}"
        )
    if held < MIN_COHORT:
        raise InputError(
            f"{phones + held} phones leave {held} held out to evaluate on, below the minimum cohort of {MIN_COHORT}; "
            f"bring at least {3 * MIN_COHORT}"
        )


def _privacy(schema: Schema, options: Options, q: float, delta: float, unit: str) -> PrivacyPlan:
    sensitivities = {"knots": histogram_sensitivity(schema), "training": CLIP[options.model]}
    source = "test-seeded" if options.test_seeded else "os"
    if options.noise == 0:
        return PrivacyPlan("off", delta, 1.0, "zero-out", unit, (), source)
    if options.noise is not None:
        charges = fixed_noise(options.noise, options.rounds, q, sensitivities)
        cost = released(charges, delta)
        if not math.isfinite(cost):
            raise BudgetError(f"--noise {options.noise:g} gives no finite epsilon; raise it")
        budget = max(math.ceil(cost * 1e4), 1) / 1e4
        return PrivacyPlan("central", delta, budget, "zero-out", unit, charges, source)
    target = options.epsilon or DEFAULT_EPSILON
    charges = calibrate(target, delta, rounds=options.rounds, q=q, shares=SHARES, sensitivities=sensitivities)
    return PrivacyPlan("central", delta, target, "zero-out", unit, charges, source)


def fixed_noise(noise: float, rounds: int, q: float, sensitivities: Mapping[str, float]) -> tuple[GaussianRelease, ...]:
    """Training at the noise multiplier asked for; the one-shot releases keep their shares of μ² beside it."""
    whole = sum(SHARES.values())
    mu2 = rounds / noise**2 / (SHARES["training"] / whole)

    def once(name: str, share: float, split: str) -> GaussianRelease:
        return GaussianRelease(name, 1 / math.sqrt(share * mu2), sensitivities.get(name, 1.0), 1, 1.0, split)

    return (
        once("knots", SHARES["knots"] / whole, "train"),
        GaussianRelease("training", noise, sensitivities["training"], rounds, q, "train"),
        once("calibration", SHARES["calibration"] / whole, "train"),
        once("evaluation", 1.0, "holdout"),
    )
