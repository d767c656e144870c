"""A lender beside the run, by its own command line: own process, keys and book; envelopes reach it over HTTP."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from model.errors import RunError
from simulation.experiment.children import environment, python
from simulation.ports import free_port

START_SECONDS = 60.0
BATCH = 200


@dataclass(frozen=True)
class Lender:
    """A lender's home outside the run, and its book inside (which the review bundle does not cover)."""

    home: Path
    book: Path

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the book."""
        return f"sqlite:///{self.book.resolve()}"

    def make(self) -> bytes:
        """A new home; returns the lender's signed card."""
        self.book.parent.mkdir(parents=True, exist_ok=True)
        card = self.home.with_name("lender.card")
        if not self.home.exists():
            _command("lender", "init", str(self.home), "--name", "Example Finance", "--purpose", "personal-loan")
        _command("lender", "card", str(self.home), "--out", str(card))
        return card.read_bytes()

    def forget(self) -> None:
        """Start with an empty book: an interrupted run may have lent before."""
        for file in self.book.parent.glob(f"{self.book.name}*"):
            file.unlink()

    def trust(self, manifest: Path, keyring: dict[str, str]) -> None:
        """Tell the lender which release to accept, and whose keys must have signed it."""
        file = self.home.with_name("release-keys.json")
        file.write_text(json.dumps(keyring), "utf-8")
        _command("lender", "trust", str(self.home), str(manifest), "--keyring", str(file))

    @contextmanager
    def serving(self, log: Path) -> Iterator[str]:
        """The lender's HTTP intake while the block runs; yields its base URL. RunError if it does not start."""
        port = free_port()
        log.parent.mkdir(parents=True, exist_ok=True)
        arguments = ["lender", "serve", str(self.home), "--port", str(port), "--database", self.database]
        with open(log, "ab") as sink:
            process = subprocess.Popen(python("fl_server", *arguments), stdout=sink, stderr=sink, env=environment())
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=30)

    def decide(self) -> list[dict[str, Any]]:
        """Decide all open applications; the documents."""
        found = json.loads(_command("lender", "decide", str(self.home), "--database", self.database, "--json"))
        return list(found)


def deliver(url: str, envelopes: Sequence[bytes]) -> list[dict[str, Any]]:
    """Post envelopes in batches; the lender's answer to each, in order. RunError if the lender stops answering."""
    answers: list[dict[str, Any]] = []
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        for start in range(0, len(envelopes), BATCH):
            part = envelopes[start : start + BATCH]
            body = b"".join(len(data).to_bytes(4, "big") + data for data in part)
            try:
                reply = client.post("/v1/envelopes/batch", content=body)
                reply.raise_for_status()
            except httpx.HTTPError as error:
                raise RunError(f"the lender did not take a batch ({error}); see its log and run again") from error
            answers += reply.json()
    return answers


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/v1/card", trust_env=False, timeout=5).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise RunError(f"the lender did not start; its log is {log}")


def _command(*arguments: str) -> str:
    done = subprocess.run(
        python("fl_server", *arguments), capture_output=True, text=True, env=environment(), check=False
    )
    if done.returncode:
        raise RunError(f"the lender's command failed ({done.stderr.strip() or done.stdout.strip()}); run again")
    return done.stdout
