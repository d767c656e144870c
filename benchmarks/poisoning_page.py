"""The section on poisoning of docs/results.md, from the lines of a sweep (benchmarks/poisoning.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from simulation.redteam.poisoning_attacks import ATTACKS
from simulation.redteam.poisoning_scenes import Setting
from simulation.redteam.poisoning_table import GATE, Line

TITLE = "## Poisoning"
ROW, HELD = Setting(), Setting(rows=24, clip=0.1)
NOISE = {ROW: Setting(epsilon=1.5), HELD: Setting(rows=24, clip=0.1, epsilon=1.5)}
WITHIN = [name for name, attack in ATTACKS.items() if attack.clipped and name != "backdoor"]
RULES = ("mean", "median", "trimmed-mean", "multikrum", "rfa")
NO_LINE = "–"

BEFORE = """
Hostile phones in the training of the additive model on the same table (all of this is simulation_only; made by
`make poisoning`, every run in `docs/poisoning.json`). Five fresh splits of ADR 2's plan, 20 rounds; AUC lost is
against the same split without hostile phones, mean ± standard deviation. The phones and the server's step are the
system's own, the lie alone is put in; knots are honest. Hostile phones know every honest update of the round before
they send theirs and work together, which no attacker under masks can; only IPM's "guess" uses nothing but their own
rows. In bold what costs more than .02.

Two populations. **One row a phone** is this page's: clip norm 1, nearly the longest a single row's update can be.
**24 rows a phone** groups the same rows at random, 1,000 phones with clip norm .1, some 1.2 times the median norm
in later rounds: phones with a history, as alike as phones can be. (The clip norm of .1 was chosen on the first of
these splits.)

### What secure aggregation leaves: the mean of clipped updates

AUC lost where hostile phones respect the clip:
"""

WHAT = """
Sign flip is its own update ×(-4), label flip training on flipped labels, ALIE the honest mean less z standard
deviations (Baruch et al. 2019; z from their formula, or 1.5), IPM minus the honest mean ×1 or ×10 (Xie et al.
2020), ×10 from the hostile phones' own rows (guess), or as long as the clip allows (clip); each then clipped.
"""

BACKDOOR = """
A backdoor: hostile phones train on their own rows with three features left blank and the label good, ×10, clipped.
The AUC hardly shows it. Success is the share of held-out *bad* rows that, with those features blank, fall among the
70 % a lender would approve:
"""

IGNORED = """
Phones that ignore the clip send 10 or 1,000 clip norms against the honest mean. "Impossible": share of rounds whose
sum was longer than clipped phones and noise can give; "unusual": longer than its own history suggests (spec 13.13;
neither fired in any training without hostile phones):
"""

CLIPS = """
What a smaller clip norm and more rows a phone do to IPM ×10 at 10 %. "Pull": the longest mean of a round without
hostile phones, in clip norms, its intercept left out. A share f of hostile phones that push with the whole clip norm
turns a mean whose pull is below f / (1 − f), which is .111 at a tenth:
"""

CLEAR = """
### Rules that need every update in the clear

Simulations in mode off only: <span style="color:red">every update seen in the clear</span>. AUC, and for the
backdoor its success, under the same attacks; the rules are told to expect 20 %.
"""

REMAINS = """
### What remains, plainly

- **That a tenth of phones which respect the clip cost at most .02 holds where phones hold many rows and the clip is
  near their norm, and not on this page's own population.** Updates of single rows all but cancel: a phone's norm is
  .2 to .5, the mean's .02. A tenth of phones that push one way with the whole clip norm outweigh the other nine
  tenths. Sign flip, label flip and ALIE stay within .02; IPM ×10 destroys the model, and does it great harm when it
  must guess the honest mean from hostile phones' own rows. No clip norm tried mends it: a smaller one shortens
  honest updates as well, costs AUC without any attack, and even where it leaves nothing of an update but its
  direction the pull of single rows stays below the .111 that a tenth of hostile phones brings.
- **A backdoor on values that honest phones lack succeeds**, at 10 % and wherever the mean is used. Noise does not
  stop it, nor does MultiKrum or RFA; the median, at 24 rows a phone, slows it. Blank fields should be refused where
  a form must be filled, and a release reviewed for what its curves say of values nobody has.
- **The clip is not enforced under masks.** A tenth of phones that ignore it end the training whatever the rest do.
  One phone among 24,000 with 1,000 clip norms costs AUC as well. The alarm on a sum's norm is certain only of what
  exceeds n clip norms: it misses that one phone and IPM, and sees nothing before a round is spent. A proof of the
  norm with each message is what would close this (ADR 99); it is not built.
- **Robust rules are no way out.** They need what secure aggregation takes away; on single rows they take good
  phones' typical update for the truth and lose the bad ones, who are few and far from it.
- Not measured: hostile phones that lie in the knots or in calibration, that come and go, or that tune themselves to
  a rule; phones whose rows differ by person (the 24 rows here do not); the MLP.
"""


def section(found: Sequence[Line]) -> str:
    """The whole section, from its title on."""
    at = {(line.cell.setting, line.cell.attack, line.cell.share): line for line in found}
    parts = [TITLE, BEFORE, _losses(at), WHAT, BACKDOOR, _doors(at), IGNORED, _ignored(at), CLIPS, _clips(at)]
    parts += [CLEAR, _clear(at), REMAINS]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def with_section(page: str, text: str) -> str:
    """The page with its section on poisoning replaced, or put at its end."""
    before, _, rest = page.partition(f"\n{TITLE}\n")
    _, mark, after = rest.partition("\n## ")
    return f"{before.rstrip()}\n\n{text.rstrip()}\n" + (f"{mark}{after}" if mark else "")


Found = dict[tuple[Setting, str, float], Line]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _loss(line: Line | None) -> str:
    if line is None or math.isnan(line.loss):
        return NO_LINE
    text = f"{line.loss:+.4f} ± {line.loss_sd:.4f}"
    return f"**{text}**" if line.loss > GATE else text


def _losses(at: Found) -> str:
    head = ["attack", "1 row, 10 %", "1 row, 20 %", "1 row, ε 1.5, 10 %", "24 rows, 10 %", "24 rows, 20 %"]
    head.append("24 rows, ε 1.5, 10 %")
    alone = ["*none: AUC*"]
    for setting in (ROW, HELD):
        for each in (setting, setting, NOISE[setting]):
            line = at.get((each, "none", 0.0))
            alone.append(f"{line.auc:.4f} ± {line.auc_sd:.4f}" if line else NO_LINE)
    rows = [alone]
    for name in WITHIN:
        cells = []
        for setting in (ROW, HELD):
            wanted = ((setting, name, 0.1), (setting, name, 0.2), (NOISE[setting], name, 0.1))
            cells += [_loss(at.get(key)) for key in wanted]
        rows.append([name, *cells])
    return _table(head, rows)


def _doors(at: Found) -> str:
    rows = []
    for setting, says in (
        (ROW, "1 row"),
        (HELD, "24 rows"),
        (NOISE[ROW], "1 row, ε 1.5"),
        (NOISE[HELD], "24 rows, ε 1.5"),
    ):
        cells = []
        for share in (0.0, 0.1, 0.2):
            line = at.get((setting, "backdoor" if share else "none", share))
            cells.append(f"{line.success:.2f} ± {line.success_sd:.2f}" if line else NO_LINE)
        rows.append([says, *cells, _loss(at.get((setting, "backdoor", 0.1)))])
    return _table(["phones", "none hostile", "10 %", "20 %", "AUC lost at 10 %"], rows)


def _ignored(at: Found) -> str:
    rows = []
    for setting, says in (
        (ROW, "1 row"),
        (HELD, "24 rows"),
        (NOISE[ROW], "1 row, ε 1.5"),
        (NOISE[HELD], "24 rows, ε 1.5"),
    ):
        for name in ("no-clip-10", "no-clip-1000"):
            for share, of in ((0.0, "one phone"), (0.1, "10 %"), (0.2, "20 %")):
                line = at.get((setting, name, share))
                if line:
                    flags = [f"{line.flagged:.0%}", f"{line.odd:.0%}"]
                    rows.append([says, f"×{name.rpartition('-')[2]}", of, f"{line.auc:.4f}", _loss(line), *flags])
    return _table(["phones", "clip norms", "hostile", "AUC", "AUC lost", "impossible", "unusual"], rows)


def _clips(at: Found) -> str:
    rows = []
    for setting in dict.fromkeys(key[0] for key in at):
        if setting.rule == "mean" and not setting.epsilon and not setting.phones and (setting, "ipm-10", 0.1) in at:
            alone, line = at[setting, "none", 0.0], at[setting, "ipm-10", 0.1]
            figures = [f"{alone.auc:.4f} ± {alone.auc_sd:.4f}", f"{line.auc:.4f} ± {line.auc_sd:.4f}", _loss(line)]
            rows.append([max(setting.rows, 1), -(setting.clip or 1.0), [f"{alone.pull:.3f}", *figures]])
    rows.sort(key=lambda row: row[:2])
    head = ["rows a phone", "clip norm", "pull", "AUC without", "AUC with IPM ×10", "AUC lost"]
    return _table(head, [[str(count), f"{-clip:g}", *figures] for count, clip, figures in rows])


def _clear(at: Found) -> str:
    rows = []
    for rows_, says in ((24, "24 rows, 1,005"), (0, "1 row, 1,200")):
        for rule in RULES:
            setting = Setting(rows=24, clip=0.1, rule=rule) if rows_ else Setting(phones=1_200, rule=rule)
            if (setting, "none", 0.0) not in at:
                continue
            keys = [("none", 0.0), ("sign-flip", 0.1), ("ipm-10", 0.1), ("ipm-10", 0.2), ("no-clip-1000", 0.2)]
            lines = [at.get((setting, *key)) for key in keys]
            cells = [f"{line.auc:.4f} ± {line.auc_sd:.4f}" if line else NO_LINE for line in lines]
            doors = [at.get((setting, "backdoor", share)) for share in (0.1, 0.2)]
            cells += [f"{line.success:.2f}" if line else NO_LINE for line in doors]
            rows.append([says, rule, *cells])
    head = ["phones", "rule", "none hostile", "sign flip 10 %", "IPM ×10 10 %", "IPM ×10 20 %", "clip ×1000 20 %"]
    return _table([*head, "backdoor 10 %", "backdoor 20 %"], rows)
