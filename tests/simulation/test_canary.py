"""Markers planted in raw data appear in no byte that leaves a phone: at the egress, in answers, on the wire."""

from __future__ import annotations

import base64
import contextlib
import csv
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fl_client.device import Phone, score_phone
from fl_client.egress import MemoryEgress
from fl_client.events import to_columns
from fl_client.identity import LenderCard
from fl_client.phones import Partial, Task
from fl_client.replies import write_partial
from fl_client.scoring import Scorer
from fl_server.lending.keys import LenderHome
from model.contract.envelope import SigningKey
from model.contract.plan import TrainingPlan
from model.contract.sealed import RecipientKey, open_sealed
from model.risk.export import export
from model.risk.network import RiskNetwork
from simulation.federate import federate
from simulation.planning import Options, build_plan
from simulation.population.generate import TODAY, Population, events
from simulation.ports import free_port
from simulation.superlink import CONNECTION, deployment, flwr_run
from simulation.table import Table, TableChoice, read_table
from simulation.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[2]
TEXTS = ("CANARYcanary7f3a91", "canary-person-5512", "CanaryRegionQQ")
NUMBER = 7_654_321.125  # exact in float32 and float64
NOW = 1_795_000_000


def forms_of_text(text: str) -> set[bytes]:
    raw = text.encode()
    return {raw, raw.lower(), raw.upper(), text.encode("utf-16-le"), text.encode("utf-16-be"), raw.hex().encode(),
            base64.b64encode(raw)[:-4], base64.urlsafe_b64encode(raw)[:-4]}  # fmt: skip


def forms_of_number(value: float) -> set[bytes]:
    packed = {struct.pack(form, value) for form in ("<f", ">f", "<d", ">d")}
    whole = {struct.pack(form, int(value)) for form in ("<i", ">i", "<q", ">q")}
    return packed | whole | {repr(value).encode(), str(int(value)).encode()}


def found(data: bytes) -> list[bytes]:
    """Planted forms that occur in `data`."""
    forms = set().union(*map(forms_of_text, TEXTS)) | forms_of_number(NUMBER)
    return [form for form in forms if form in data]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """120 people; every tenth has the markers in id, text, number and protected column."""
    path = tmp_path_factory.mktemp("canary") / "people.csv"
    random = np.random.default_rng(5)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["person", "employer", "income", "region", "bad"])
        for i in range(120):
            marked = i % 10 == 0
            person = f"{TEXTS[1]}-{i}" if marked else f"p{i}"
            employer = TEXTS[0] if marked else ("mill", "farm", "shop")[i % 3]
            out.writerow([person, employer, NUMBER if marked else round(random.uniform(1, 9e4), 2),
                          TEXTS[2] if marked else "north", int(random.random() < 0.3)])  # fmt: skip
    assert found(path.read_bytes())  # control: the markers really are in the raw data
    return read_table(TableChoice(path, "bad", None, "person", ("region",)))


def plan_for(table: Table, rounds: int = 2) -> TrainingPlan:
    options = Options(epsilon=4.0, rounds=rounds, test_seeded=True)
    return build_plan(table.dataset, options, unit=table.unit, now=NOW)


def prepared(folder: Path, table: Table, plan: TrainingPlan) -> Workspace:
    folder.mkdir()
    place = Workspace(folder)
    place.prepare(table.dataset, plan, [SigningKey.generate(), SigningKey.generate()])
    return place


def test_no_answer_of_a_farm_holds_a_marker(tmp_path: Path, table: Table) -> None:
    plan = plan_for(table)
    place = prepared(tmp_path / "run", table, plan)
    answers: list[bytes] = []

    class Spied:
        """A farm whose answers are kept as the bytes that would leave."""

        def __init__(self) -> None:
            self.farm = place.farm(0, 1)

        def partial(self, task: Task) -> Partial:
            partial = self.farm.partial(task)
            records = write_partial(task, partial, MemoryEgress(NOW))
            answers.append(records.array_records["sum"]["sum"].data)
            answers.append(records.config_records["partial"]["header"])
            return partial

    federate(place, phones=lambda index: Spied())
    sent = b"".join(answers)
    assert len(answers) == 2 * (plan.rounds + 3)
    assert not found(sent)
    assert plan.digest.encode() in sent  # control: a declared field is seen, so markers would be too


def test_nothing_sealed_for_a_lender_holds_a_marker(tmp_path: Path) -> None:
    """The lender's own plaintext is searched, since sealed bytes would hide a marker from us as well."""
    home = LenderHome.init(tmp_path / "lender", "Example", "example", ["personal-loan"])
    card = LenderCard.read(home.card(NOW).signed(home.signing).to_bytes(), NOW)
    population = Population(seed=1, phones=64)
    columns = next(c for c in (to_columns(events(population, i)) for i in range(64)) if len(c["upi"]["day"]) > 40)
    for kind, name in (("upi", "amount"), ("sms", "amount"), ("topup", "amount")):
        columns[kind][name] = np.full_like(columns[kind][name], NUMBER)
    assert any(found(np.ascontiguousarray(array).tobytes()) for kind in columns.values() for array in kind.values())
    schema = population.schema
    scorer = Scorer(*released(schema), schema, min_observed_days=0)
    egress, phone = MemoryEgress(NOW), Phone.in_memory(events=columns)
    consents = phone.consents(card)
    receipt = consents.give(schema, card, purpose="personal-loan", policy_pack="in-rbi-2025", now=NOW)
    sealed = [consents.release(receipt, card, egress)]
    sealed.append(score_phone(phone, scorer, card, egress, now=NOW, start_day=TODAY, ref="CONTROL-REF").sealed)
    plain = b"".join(opened(data, home.hpke, card.audience) for data in sealed)
    assert not found(plain + b"".join(sealed))
    assert b"CONTROL-REF" in plain  # control: a declared field is seen
    assert sum(line.bytes for line in egress.lines()) == sum(map(len, sealed))


def opened(data: bytes, key: RecipientKey, audience: str) -> bytes:
    return open_sealed(data, key, {"purpose": "personal-loan", "audience": audience})


def released(schema: object) -> tuple[bytes, dict[str, object]]:
    """An untrained model of the schema and the part of its manifest that scoring reads."""
    from model.canonical import sha256_hex
    from model.risk.calibration import Platt
    from model.risk.knots import Knots
    from model.risk.schema import Schema

    if not isinstance(schema, Schema):
        raise TypeError("a schema is needed")
    knots = Knots(
        tuple((float(f.lower), float(f.upper)) if f.kind == "number" else (0.0,) for f in schema.features),
        tuple((0.5, 0.5, 0.0) if f.kind == "number" else (0.9, 0.1) for f in schema.features),
    )
    network = RiskNetwork(schema, knots)
    network.load_flat(np.linspace(-0.1, 0.1, network.dimension).astype(np.float32))
    onnx = export(network, Platt(), schema)
    manifest = {
        "schema_digest": schema.digest, "model_digest": sha256_hex(onnx), "policy_pack": "in-rbi-2025",
        "features": list(schema.names), "reasons": [f.reason for f in schema.features],
        "score": {"grid": 10, "days": 30, "base": 600, "odds": 8, "pdo": 60},
    }  # fmt: skip
    return onnx, manifest


class Relay:
    """A recording relay on loopback: what a node sends towards the SuperLink, and what comes back."""

    def __init__(self, port: int) -> None:
        self.up, self.down = bytearray(), bytearray()
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                threading.Thread(target=self._pump, args=(near, far, self.up), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, self.down), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, record: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                record += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._server.close()


@contextlib.contextmanager
def relays(count: int, port: int) -> Iterator[list[Relay]]:
    made = [Relay(port) for _ in range(count)]
    try:
        yield made
    finally:
        for relay in made:
            relay.close()


@pytest.mark.integration
def test_no_byte_between_supernodes_and_superlink_holds_a_marker(tmp_path: Path, table: Table) -> None:
    plan = plan_for(table)
    place = prepared(tmp_path / "run", table, plan)
    place.expect(2)
    port, home = free_port(), tmp_path / "home"
    with relays(2, port) as recorded:
        with deployment(home, 2, port=port, relay=[relay.address for relay in recorded]) as address:
            (home / "config.toml").write_text(CONNECTION.format(address=address))
            flwr_run(PROJECT, place, home, ["here"], timeout=240)
        for relay in recorded:
            sent = bytes(relay.up)
            assert len(sent) > 8 * plan.rounds * 20
            assert not found(sent)
            assert not found(bytes(relay.down))
            assert plan.digest.encode() in sent  # control: a declared field crosses this relay in the clear
