"""`pocketscore keys`: the two keys that sign a simulated run's plan, made before the run, so a helper can be told them.

A helper serves one coordinator and one reviewer, named once (spec 13.6.1). So their keys are there before any run, and
every run that is to ask this helper takes them with `--keys`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fl_server.keys import KeyRing, load_key, replace_file, save_key
from model.contract.envelope import SigningKey
from model.errors import InputError

ROLES = ("coordinator", "reviewer")
PUBLIC = "keys.json"


def keys(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for the keys.")]) -> None:
    """Make a coordinator's and a reviewer's key (0600), and keys.json with their public halves."""
    print(f"{make(folder)} names the public keys; a helper is told them with `pocketscore-review helper init --trust`")


def make(folder: Path) -> Path:
    """Both keys in `folder`, and where their public halves stand; InputError where it holds anything already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder; name a new folder for the keys")
    ring = KeyRing(folder)
    made = {role: ring.ensure(role) for role in ROLES}
    public = {role: {"keyid": key.keyid, "public": key.public_bytes.hex()} for role, key in made.items()}
    replace_file(folder / PUBLIC, json.dumps(public, indent=2).encode())
    return folder / PUBLIC


def held(folder: Path) -> dict[str, SigningKey]:
    """Both keys of `folder` by role; InputError where one is missing or exposed."""
    return {role: load_key(folder / f"{role}.key") for role in ROLES}


def adopt(folder: Path, ring: Path) -> None:
    """Copy both keys of `folder` into a run's own key folder `ring`; InputError where one is missing or exposed."""
    ring.mkdir(mode=0o700, parents=True, exist_ok=True)
    for role, key in held(folder).items():
        save_key(ring / f"{role}.key", key)
