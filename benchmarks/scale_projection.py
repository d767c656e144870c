"""Noise, ε and cost of a run over very many phones, by the accountant and from rates given on the command line.

Assumed throughout: full rounds (q = 1); a fifth of the phones held out; the additive model's plan of `simulation`
(clip 1, shares of μ² as in `simulation.planning`); the coordinator's own noise (mode central).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from model.privacy.accountant import calibrate, default_delta, released
from model.privacy.mechanism import GaussianRelease
from model.risk.knots import histogram_sensitivity
from model.risk.registry import R_DEFAULT, default_schema
from simulation.planning import CLIP, SHARES

HELD_OUT = 0.2
STRICT_DELTA = 1e-10
REFERENCES = ((20_000, 1.5, None), (1_000_000, 0.1, STRICT_DELTA))  # phones, ε, δ (None: the default for N)
TARGETS = (1.0, 0.1, 0.01)
Figures = dict[str, Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What a projection is told; rates are those of one core."""
    parser.add_argument("--phones", type=int, default=70_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--make", type=float, default=4_700.0, help="phones made, events to features, a core-second")
    parser.add_argument(
        "--updates", type=float, nargs="*", default=[100_000.0, 500_000.0], help="phone updates a core-second"
    )
    parser.add_argument("--cores", type=int, default=16, help="of one machine")
    parser.add_argument("--machines", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--overhead", type=float, default=10.0, help="seconds a release that Flower adds")
    parser.add_argument("--bytes", type=float, default=47_000.0, help="a node and release, down and up together")
    parser.add_argument("--price", type=float, default=0.04, help="of a core-hour, in dollars")


def project(options: argparse.Namespace) -> Figures:
    """Print the tables; returns their figures."""
    phones, rounds = options.phones, options.rounds
    found: Figures = {"phones": phones, "rounds": rounds, "delta": default_delta(trained(phones))}
    found["same_noise"] = [same_noise(phones, rounds, *reference) for reference in REFERENCES]
    deltas = (found["delta"], STRICT_DELTA)
    found["same_epsilon"] = [fixed_epsilon(phones, rounds, eps, delta) for eps in TARGETS for delta in deltas]
    found["simulation"] = [
        simulated(options, rate, machines) for rate in options.updates for machines in options.machines
    ]
    show(found)
    return found


def trained(phones: int) -> int:
    """Phones of the train split."""
    return phones - round(HELD_OUT * phones)


def charges_for(eps: float, delta: float, rounds: int) -> tuple[GaussianRelease, ...]:
    """The releases of an additive plan that spends `eps` at `delta`."""
    sensitivities = {"knots": histogram_sensitivity(default_schema(R_DEFAULT)), "training": CLIP["additive"]}
    return calibrate(eps, delta, rounds=rounds, shares=SHARES, sensitivities=sensitivities)


def noise_a_weight(charges: Sequence[GaussianRelease], phones: int) -> float:
    """Standard deviation that the noise of one round gives one weight of the mean update (training coordinates)."""
    training = next(charge for charge in charges if charge.name == "training")
    return training.sigma / trained(phones)


def same_noise(phones: int, rounds: int, few: int, eps: float, delta: float | None) -> Figures:
    """ε of `phones` under the noise a weight that a run over `few` has at (`eps`, `delta`)."""
    delta = delta or default_delta(trained(few))
    before = charges_for(eps, delta, rounds)
    factor = trained(phones) / trained(few)
    after = tuple(replace(charge, noise_multiplier=charge.noise_multiplier * factor) for charge in before)
    own = default_delta(trained(phones))
    return {
        "reference_phones": few,
        "reference_epsilon": eps,
        "reference_delta": delta,
        "reference_multiplier": _training(before),
        "noise_a_weight": noise_a_weight(before, few),
        "multiplier": _training(after),
        "epsilon": released(after, own),
        "epsilon_replace_one": released(after, own, relation="replace-one"),
        "epsilon_at_strict_delta": released(after, STRICT_DELTA),
    }


def fixed_epsilon(phones: int, rounds: int, eps: float, delta: float) -> Figures:
    """Noise a weight of `phones` at (`eps`, `delta`), and what it is of the reference runs' noise."""
    charges = charges_for(eps, delta, rounds)
    noise = noise_a_weight(charges, phones)
    of = {
        f"of_{few}": noise / noise_a_weight(charges_for(e, d or default_delta(trained(few)), rounds), few)
        for few, e, d in REFERENCES
    }
    replaced = released(charges, delta, relation="replace-one")
    return {
        "epsilon": eps,
        "delta": delta,
        "epsilon_replace_one": replaced,
        "multiplier": _training(charges),
        "noise_a_weight": noise,
        **of,
    }


def simulated(options: argparse.Namespace, rate: float, machines: int) -> Figures:
    """Core-hours, wall time, price and bytes of simulating the run; cores share the work evenly."""
    made, releases = options.phones / options.make, options.rounds + 3
    # The three histograms (knots, calibration, evaluation) are priced as a round each.
    updates = releases * trained(options.phones) / rate
    wall = (made + updates) / (machines * options.cores) + releases * options.overhead
    return {
        "updates_a_core_second": rate,
        "machines": machines,
        "core_hours_making": made / 3600,
        "core_hours_training": updates / 3600,
        "wall_minutes": wall / 60,
        "price_dollars": (made + updates) / 3600 * options.price,
        "reserved_price_dollars": wall / 3600 * machines * options.cores * options.price,
        "gigabytes_of_messages": machines * releases * options.bytes / 1e9,
    }


def show(found: Figures) -> None:
    """The tables as lines."""
    print(f"{found['phones']:,} phones, {found['rounds']} full rounds, delta {found['delta']:g}; train split as N")
    print("the noise a weight of a smaller run:")
    for row in found["same_noise"]:
        print(
            f"  {row['reference_phones']:>9,} phones at eps {row['reference_epsilon']:g}, delta "
            f"{row['reference_delta']:g}: z {row['reference_multiplier']:.2f}, noise a weight "
            f"{row['noise_a_weight']:.2e} -> z {row['multiplier']:,.0f}, eps {row['epsilon']:.2e} (replace-one "
            f"{row['epsilon_replace_one']:.2e}, at delta {STRICT_DELTA:g} {row['epsilon_at_strict_delta']:.2e})"
        )
    print("a fixed eps:")
    for row in found["same_epsilon"]:
        shares = ", ".join(f"{row[f'of_{few}']:.2e} of the {few:,}-phone run's" for few, *_ in REFERENCES)
        print(
            f"  eps {row['epsilon']:g} (replace-one {row['epsilon_replace_one']:.3g}), delta {row['delta']:g}: "
            f"z {row['multiplier']:,.1f}, noise a weight {row['noise_a_weight']:.2e}; {shares}"
        )
    print("simulating it:")
    for row in found["simulation"]:
        print(
            f"  {row['updates_a_core_second']:>9,.0f} updates a core-second, {row['machines']:>3} machines: "
            f"{row['core_hours_making']:.1f} + {row['core_hours_training']:.1f} core-hours, "
            f"{row['wall_minutes']:.1f} min, ${row['price_dollars']:.2f} of work, "
            f"${row['reserved_price_dollars']:.2f} of machines, {row['gigabytes_of_messages']:.3f} GB of messages"
        )


def _training(charges: Sequence[GaussianRelease]) -> float:
    return next(charge.noise_multiplier for charge in charges if charge.name == "training")
