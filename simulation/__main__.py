"""`pocketscore`: simulate a whole federation on made-up phones or on a person's own table, or run the demo."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import click
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from model.errors import InputError, PocketScoreError
from simulation.attendance import DEADLINE, Reach
from simulation.experiment.request import Progress as Step
from simulation.experiment.request import Request
from simulation.faults import Faults
from simulation.planning import Options
from simulation.redteam.commands import app as attacks
from simulation.report import next_steps, show
from simulation.signers import keys as plan_keys
from simulation.table import TableChoice

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

DEMO_PHONES = 20_000
DEMO_SEED = 2026
REFUSED = 2
INTERRUPTED = 130
LABELS = {"phones": "making phones", "rounds": "training", "scores": "scoring on phones"}

Out = Annotated[Path, typer.Option(help="Folder of the run; it appears when the run is whole.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print summary.json instead of tables.")]
Overwrite = Annotated[bool, typer.Option(help="Replace a finished run in the same folder.")]
Farms = Annotated[
    int | None, typer.Option(help="Flower nodes that share the phones (2; 1 where --aggregation compares them all).")
]

app.add_typer(attacks, name="attack")
app.command("keys", epilog="Example: pocketscore keys keys")(plan_keys)


@app.callback()
def _root() -> None:
    """Federated, on-device credit scoring: the score leaves the phone; the data never does."""


@app.command(
    epilog="Examples:  pocketscore simulate --phones 20000 --epsilon 1.5 --out runs/first   ·   "
    "pocketscore simulate --data loans.csv --target defaulted --id customer --protected sex,age --out runs/mine   ·   "
    "pocketscore simulate --phones 20000 --availability diurnal --deadline 8 --participation .5 --over-select 1.3 "
    "--faults drop=.05,slow=.1,duplicate=.01,hostile=.01 --out runs/night   ·   "
    "pocketscore simulate --phones 3000 --epsilon 4 --privacy helper --helper-epsilon 8 --out runs/masked   ·   "
    "pocketscore simulate --phones 3000 --epsilon 4 --privacy helper --helper runs/helper --keys runs/signers --flower "
    "--out runs/two-servers"
)
def simulate(
    out: Out,
    phones: Annotated[int | None, typer.Option(help="Make up this many phones.")] = None,
    data: Annotated[Path | None, typer.Option(help="Your own table, .csv or .parquet: rows become phones.")] = None,
    target: Annotated[str | None, typer.Option(help="Column of --data to predict.")] = None,
    positive: Annotated[str | None, typer.Option(help="Value of --target that is the bad outcome.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Column that says whose row it is.")] = None,
    protected: Annotated[str, typer.Option(help="Columns to audit and never use as features, by comma.")] = "",
    schema: Annotated[Path | None, typer.Option(help="TOML with public bounds, categories and signs.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Privacy budget of the whole run (default 1.5).")] = None,
    noise: Annotated[float | None, typer.Option(help="Training noise multiplier instead; 0 turns noise off.")] = None,
    privacy: Annotated[
        str, typer.Option(help="helper (two servers), pairwise (masks among phones), central, local or off.")
    ] = "central",
    helper: Annotated[
        Path | None, typer.Option(help="Mode helper: home, or address.json, of a helper's own process.")
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="Folder of the plan's signers, from `pocketscore keys`.")] = None,
    helper_epsilon: Annotated[
        float | None, typer.Option(help="Mode helper: the ε against the helper, if it may exceed --epsilon.")
    ] = None,
    honest: Annotated[float, typer.Option(help="Mode pairwise: share of a cohort whose noise alone must do.")] = 0.7,
    aggregation: Annotated[
        str, typer.Option(help="mean, or with --privacy off: median, trimmed-mean, multikrum or rfa.")
    ] = "mean",
    delta: Annotated[float | None, typer.Option(help="A δ below the default, N^-1.1 and at most 1e-5.")] = None,
    rounds: Annotated[int, typer.Option(help="Training rounds.")] = 20,
    participation: Annotated[float, typer.Option(help="Share of phones asked in a round; 1 asks all.")] = 1.0,
    model: Annotated[str, typer.Option(help="additive (exact reasons) or mlp.")] = "additive",
    seed: Annotated[int, typer.Option(help="Phones, split and shuffles; never the protective noise.")] = 0,
    regime: Annotated[str, typer.Option(help="Of made-up phones: default, or weak (little signal).")] = "default",
    farms: Farms = None,
    flower: Annotated[bool, typer.Option(help="Through a real SuperLink with a SuperNode for each farm.")] = False,
    engine: Annotated[str, typer.Option(help="auto (the fastest), native, batched or reference (slow).")] = "auto",
    score: Annotated[int, typer.Option(help="Phones that score themselves for the lender at the end.")] = 1000,
    baselines: Annotated[bool, typer.Option(help="Fit central, boosting and silo models for comparison.")] = True,
    availability: Annotated[str, typer.Option(help="always, or diurnal: phones answer while charging on Wi-Fi.")] = (
        "always"
    ),
    deadline: Annotated[float, typer.Option(help="Virtual hours a round waits for answers.")] = DEADLINE,
    over_select: Annotated[float, typer.Option(help="Ask this many times the participation, so enough answer.")] = 1.0,
    faults: Annotated[str, typer.Option(help="Shares of phones, as drop=.05,slow=.1,duplicate=.01,hostile=.01.")] = "",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train, release, score, lend and report, on made-up phones or on your own table."""
    table = _table(data, target, positive, id_, protected, schema)
    reach = Reach(availability, deadline, over_select, Faults.parse(faults))
    options = Options(
        epsilon,
        noise,
        rounds,
        participation,
        model,
        seed,
        reach=reach,
        delta=delta,
        privacy=privacy,
        honest=honest,
        aggregation=aggregation,
        helper_epsilon=helper_epsilon,
    )
    grid = "superlink" if flower else "in-process"
    shared = farms if farms is not None else (2 if aggregation == "mean" else 1)
    request = Request(phones, table, regime, options, shared, score, baselines, grid, engine, helper, keys)
    run(request, out, overwrite=overwrite, as_json=as_json)


@app.command(epilog="Example: pocketscore demo --out runs/demo")
def demo(
    out: Out = Path("runs/demo"),
    phones: Annotated[int, typer.Option(help="Made-up phones.")] = DEMO_PHONES,
    flower: Annotated[bool, typer.Option(help="Through a real SuperLink and four SuperNodes.")] = False,
    as_json: AsJson = False,
) -> None:
    """The main job on made-up phones: the demo replaces its own earlier run."""
    options = Options(epsilon=1.5, seed=DEMO_SEED, test_seeded=flower)
    request = Request(phones, options=options, farms=4 if flower else 2, grid="superlink" if flower else "in-process")
    run(request, out, overwrite=True, as_json=as_json)


def run(request: Request, out: Path, *, overwrite: bool, as_json: bool) -> None:
    """Execute with progress bars on stderr; the summary on stdout."""
    from simulation.experiment.compose import execute

    with _bars() as progress:
        finished = execute(request, out, progress, overwrite=overwrite)
    if as_json:
        print(json.dumps(finished.summary, indent=2, allow_nan=False))
        return
    console = Console()
    show(console, finished.summary, finished.notes, finished.decisions)
    next_steps(console, out, finished.home)


def _table(
    data: Path | None, target: str | None, positive: str | None, id_: str | None, protected: str, schema: Path | None
) -> TableChoice | None:
    if data is None:
        given = {"--target": target, "--positive": positive, "--id": id_, "--schema": schema, "--protected": protected}
        stray = [name for name, value in given.items() if value]
        if stray:
            raise InputError(f"{stray[0]} goes with --data FILE; give the file or leave it out")
        return None
    if target is None:
        raise InputError("--data needs --target COLUMN, the outcome to predict")
    names = tuple(name.strip() for name in protected.split(",") if name.strip())
    return TableChoice(data, target, positive, id_, names, schema)


@contextmanager
def _bars() -> Iterator[Step]:
    """Progress bars a stage; plain lines would drown a log, so nothing moves where stderr is no terminal."""
    columns = (TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars = Progress(*columns, console=Console(stderr=True))
    tasks: dict[str, TaskID] = {}

    def step(stage: str, done: int, total: int) -> None:
        bars.start()
        if stage not in tasks:
            tasks[stage] = bars.add_task(LABELS.get(stage, stage), total=total)
        bars.update(tasks[stage], completed=done, total=total)

    try:
        yield step
    finally:
        if tasks:  # a run refused before its first stage prints its one sentence and nothing else
            bars.stop()


def main() -> None:
    """The console script: one sentence for a person's mistake, a clean end on Ctrl-C, never a traceback for either."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        code = app(prog_name="pocketscore", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError:
        code = REFUSED  # the help is printed already
    except click.ClickException as error:
        code = _say(f"✗ {_usage(error)}", REFUSED)
    except PocketScoreError as error:
        code = _say(f"✗ {error}", REFUSED)
    except (KeyboardInterrupt, click.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        _say("interrupted; the same command goes on where it stopped", INTERRUPTED)
    sys.exit(code or 0)


def _stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a run as Ctrl-C does, also in a background job, where a shell has SIGINT ignored."""
    raise KeyboardInterrupt


def _say(sentence: str, code: int) -> int:
    """One line on stderr, however narrow the terminal."""
    Console(stderr=True).print(sentence, markup=False, highlight=False, soft_wrap=True)
    return code


def _usage(error: click.ClickException) -> str:
    """What is wrong with the command line, and where to look."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else "pocketscore"
    return f"{' '.join(error.format_message().rstrip('.').split())}; see {command} --help"


if __name__ == "__main__":
    main()
