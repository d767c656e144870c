"""What a person asked for: phones to make up or a table, training options, and how much to score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from model.errors import InputError
from simulation.pace import require_bearable
from simulation.planning import Options
from simulation.table import TableChoice

MAX_PHONES = 5_000_000
MAX_FARMS = 64
ENGINES = ("auto", "native", "batched", "reference")
Progress = Callable[[str, int, int], None]


def require_utf8(option: str, text: str) -> None:
    """InputError where a name holds a byte that no manifest, page or table could repeat."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{option} is {text!r}, which is not UTF-8; choose another name") from error


@dataclass(frozen=True)
class Request:
    """One run. Either `phones` synthetic phones or a `table`; `farms` Flower nodes share them.

    `grid` is "in-process" or "superlink" (a real SuperLink with one SuperNode a farm); `engine` one of ENGINES.
    `helper` is the address of a helper in its own process, `keys` the folder of the signers it trusts (mode helper).
    """

    phones: int | None = None
    table: TableChoice | None = None
    regime: str = "default"
    options: Options = field(default_factory=Options)
    farms: int = 2
    scored: int = 1000
    baselines: bool = True
    grid: str = "in-process"
    engine: str = "auto"
    helper: Path | None = None
    keys: Path | None = None

    def __post_init__(self) -> None:
        if (self.phones is None) == (self.table is None):
            raise InputError("a run needs --phones N or --data FILE, and not both; give one of them")
        if self.phones is not None and not 1 <= self.phones <= MAX_PHONES:
            raise InputError(f"--phones {self.phones} is outside 1 to {MAX_PHONES}; 20000 is a good start")
        if not 1 <= self.farms <= MAX_FARMS or self.scored < 0:
            raise InputError(f"--farms must be 1 to {MAX_FARMS} and --score 0 or more; leave them out if unsure")
        if self.farms > 1 and self.options.aggregation != "mean":
            raise InputError(f"--aggregation {self.options.aggregation} compares all phones in one farm; use --farms 1")
        if self.engine not in ENGINES:
            raise InputError(f"--engine {self.engine!r} is unknown; use {', '.join(ENGINES[:-1])} or {ENGINES[-1]}")
        if self.helper is not None and self.options.mode != "helper":
            raise InputError("--helper names a second server; ask for it with --privacy helper, or leave it out")
        if self.helper is not None and self.keys is None:
            raise InputError("--helper needs --keys DIR, whose signers it trusts; `pocketscore keys DIR` makes them")
        if self.grid == "superlink":
            require_bearable(self.options.mode, self.options.rounds, self.phones or 0, self.farms)
        if self.table is not None:
            told = {"data": self.table.path, **{n: v for n, v in vars(self.table).items() if n != "path"}}
            for option, value in told.items():
                require_utf8(f"--{option}", str(value))

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the identity of a run, by which an interrupted one is known again."""
        named = {n: None if v is None else str(v.absolute()) for n, v in (("helper", self.helper), ("keys", self.keys))}
        raw = {**asdict(self), **named}
        if self.table is not None:
            paths = {name: str(value.absolute()) for name, value in vars(self.table).items() if isinstance(value, Path)}
            raw["table"] = {**raw["table"], **paths, "protected": list(self.table.protected)}
        return raw
