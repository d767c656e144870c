"""From a person's options to a plan that coordinator and reviewer can sign, or one sentence why not (spec 3.7).

Every default names its source: training and server settings are ADR 2's, δ and the full rounds are ADR 3's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from model.contract.plan import AGGREGATIONS, LocalTraining, ModelChoice, ServerOptimiser, TrainingPlan
from model.contract.promise import MODES
from model.contract.releases import noise_sd
from model.errors import InputError
from model.policy.rules import load_pack, require_allowed
from model.privacy.accountant import MAX_DELTA, default_delta
from model.risk.knots import histogram_sensitivity
from simulation.attendance import Reach
from simulation.dataset import Dataset
from simulation.promises import SHARES, Sizes, Wish, on_the_ring, promise, require_helper_epsilon

__all__ = ["CLIP", "MIN_COHORT", "SHARES", "Options", "build_plan", "cohort_share", "delta_of", "server_optimiser"]

MIN_COHORT = 30
SHORT_OF_COHORT = 1e-6
DEFAULT_EPSILON = 1.5
LEAST_EPSILON, MOST_EPSILON = 0.01, 100.0  # below, noise drowns every figure of any table
LEAST_HONEST = 0.05  # below, an honest phone's noise has to stand for twenty
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
    privacy: str = "central"
    honest: float = 0.7
    aggregation: str = "mean"
    helper_epsilon: float | None = None

    @property
    def mode(self) -> str:
        """The plan's privacy mode: without noise there is only "off"."""
        return "off" if self.noise == 0 else self.privacy

    @property
    def asked(self) -> float:
        """Share of phones to ask in a round: what is wanted, times the over-selection, at most all."""
        return min(1.0, self.participation * self.reach.over_select)

    def __post_init__(self) -> None:
        if self.epsilon is not None and self.noise is not None:
            raise InputError("--epsilon and --noise both set the noise; give one of them")
        if self.epsilon is not None and not LEAST_EPSILON <= self.epsilon <= MOST_EPSILON:
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
        if self.privacy not in MODES:
            raise InputError(f"--privacy {self.privacy!r} is unknown; use {', '.join(MODES)}")
        if self.mode == "off" and (self.epsilon is not None or self.noise):
            raise InputError(
                "--privacy off has no noise to set; leave out --epsilon and --noise, or choose another mode"
            )
        if self.noise == 0 and self.privacy not in ("central", "off"):
            raise InputError(f"--noise 0 leaves nothing of --privacy {self.privacy}; give one of them")
        self._check_helper_epsilon()
        if not LEAST_HONEST <= self.honest <= 1:
            raise InputError(f"--honest {self.honest:g} is outside {LEAST_HONEST:g} to 1; .7 is usual")
        if self.aggregation not in AGGREGATIONS:
            raise InputError(f"--aggregation {self.aggregation!r} is unknown; use {', '.join(AGGREGATIONS)}")
        if self.aggregation != "mean" and self.mode != "off":
            raise InputError(f"--aggregation {self.aggregation} needs every update in the clear; add --privacy off")
        if self.model not in MODELS:
            raise InputError(f"--model {self.model!r} is unknown; use {' or '.join(MODELS)}")
        if not 1 <= self.rounds <= 1000:
            raise InputError(f"--rounds {self.rounds} is outside 1 to 1000; 20 is usual")
        if not 0 < self.participation <= 1:
            raise InputError(f"--participation {self.participation:g} is outside 0 to 1; 1 asks every phone")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed {self.seed} is outside 0 to 2^63; use a smaller number of 0 or more")

    def _check_helper_epsilon(self) -> None:
        asked = self.helper_epsilon
        if asked is None:
            return
        if self.mode != "helper":
            raise InputError("--helper-epsilon is about a second server; add --privacy helper, or leave it out")
        if not LEAST_EPSILON <= asked <= MOST_EPSILON:
            raise InputError(f"--helper-epsilon {asked:g} is outside {LEAST_EPSILON:g} to 100; 2 is usual beside 1")
        if self.noise is None:
            require_helper_epsilon(asked, self.epsilon or DEFAULT_EPSILON)


def build_plan(
    data: Dataset, options: Options, *, unit: str, now: int, topology: str = "farm", helper_key: str = ""
) -> TrainingPlan:
    """The plan of a simulated run over `data`. InputError for too few phones, PolicyError for a broken rule.

    `helper_key` is the helper's public key (X25519, 64 hex digits), which mode helper needs and others ignore.
    """
    require_enough(data)
    held = int(data.holdout.sum())
    phones = data.phones - held
    response = expected_response(options)
    require_reached(min(phones, held), response)
    participation = cohort_share(phones * response, options.asked, options.rounds)
    delta = delta_of(options, phones)
    cohort = phones * participation * response
    wish = wish_of(options, helper_key)
    sizes = Sizes(phones, held, min(cohort, held * response), options.rounds)
    widths = {"knots": histogram_sensitivity(data.schema), "training": CLIP[options.model]}
    privacy = promise(wish, sizes, widths, q=participation, delta=delta, unit=unit)
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
        server=server_optimiser(options.model),
        privacy=privacy,
        seed=options.seed,
        simulation=True,
        response=response,
        aggregation=options.aggregation,
    )
    plan = on_the_ring(plan)
    plan = replace(plan, server=server_optimiser(options.model, cohort, noise_of_mean(plan, cohort)))
    require_allowed(plan, load_pack(plan.policy_pack))
    return plan


def wish_of(options: Options, helper_key: str = "") -> Wish:
    """What the options ask of the plan's privacy."""
    epsilon = None if options.noise is not None else options.epsilon or DEFAULT_EPSILON
    source = "test-seeded" if options.test_seeded else "os"
    key = helper_key if options.mode == "helper" else ""
    return Wish(options.mode, epsilon, options.noise, options.honest, key, source, options.helper_epsilon)


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


def noise_of_mean(plan: TrainingPlan, cohort: float) -> float:
    """Standard deviation of one coordinate of a round's mean update, in training coordinates; 0 without noise."""
    return noise_sd(plan, "train") / cohort


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
