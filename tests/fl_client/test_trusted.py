"""Cases 43–48 and 53 against a real TUF repository on a real loopback server; each with an untouched control."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.api.metadata import Delegations, Metadata, Root, Snapshot, Targets, Timestamp

from fl_client import hardened
from fl_client.fetching import FolderFetcher, HttpFetcher, Sync
from fl_client.trusted import CLOCK_SKEW, Trusted
from fl_server import release, repository
from fl_server.release import DAY, ReleaseKeys
from model.canonical import sha256_hex
from model.contract import envelope
from model.contract.envelope import SigningKey
from model.contract.release import EpsilonCard, GateFigures, ReleaseManifest, ScoreScale
from model.contract.repository import verify
from model.errors import ModelError, TrustError

NOW = 1_800_000_000
SCHEMA = "5c" * 32


def key(byte: int) -> SigningKey:
    return SigningKey.from_private_bytes(bytes([byte]) * 32)


KEYS = ReleaseKeys(release=key(1), reviewer=key(2), online=key(3))


def onnx_model(bias: float = 0.0, operator: str = "Sigmoid") -> bytes:
    """One feature; pd = sigmoid(x + bias) with NaN as 0."""
    make, info = helper.make_node, helper.make_tensor_value_info
    nodes = [
        make("IsNaN", ["features"], ["missing"]),
        make("Where", ["missing", "zero", "features"], ["known"]),
        make("Clip", ["known", "low", "high"], ["contributions"]),
        make("Add", ["contributions", "bias"], ["shifted"]),
        make("Squeeze", ["shifted", "axis"], ["logit"]),
        make(operator, ["logit"], ["pd"]),
        make("Mul", ["pd", "span"], ["points"]),
        make("Sub", ["top", "points"], ["score"]),
    ]
    values = {"zero": 0.0, "low": -5.0, "high": 5.0, "bias": bias, "span": 600.0, "top": 900.0}
    constants = [numpy_helper.from_array(np.float32(v).reshape(()), n) for n, v in values.items()]
    constants.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    outputs = [info("pd", 1, ["N"]), info("score", 1, ["N"]), info("contributions", 1, ["N", 1])]
    graph = helper.make_graph(nodes, "risk", [info("features", TensorProto.FLOAT, ["N", 1])], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def manifest_of(onnx: bytes, version: int = 1, **changes: Any) -> ReleaseManifest:
    fields: dict[str, Any] = {
        "name": "demo",
        "version": version,
        "schema_digest": SCHEMA,
        "plan_digest": "9a" * 32,
        "model_digest": sha256_hex(onnx),
        "onnx_bytes": len(onnx),
        "epsilon": EpsilonCard(
            1.5, None, None, "central mode: the coordinator adds the noise", 1e-6, "zero-out", "phone"
        ),
        "gate": GateFigures(0.75, 0.01, 0.01, True, ()),
        "policy_pack": "in-rbi-2025",
        "score": ScoreScale(10, 30),
        "reasons": ("income varies",),
        "features": ("income",),
        "created_at": NOW,
        "expires_at": NOW + 60 * DAY,
    }
    return ReleaseManifest(**{**fields, **changes})


class Publisher:
    """The publisher's side of a test: a repository in `folder`, served at `url`."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.root = b""

    def publish(self, version: int = 1, *, now: int = NOW, onnx: bytes | None = None, **changes: Any) -> bytes:
        onnx = onnx or onnx_model(float(version))
        done = release.publish(onnx, manifest_of(onnx, version, **changes), self.folder, KEYS, now=now)
        self.root = done.root
        return onnx

    def newest(self, role: str) -> Path:
        if role == "timestamp":
            return self.folder / "metadata" / "timestamp.json"
        return max(self.folder.glob(f"metadata/*.{role}.json"), key=lambda path: int(path.name.split(".")[0]))

    def resign(self, role: str, signers: list[SigningKey], change: Callable[[Any], None] = lambda signed: None) -> None:
        """Rewrite the newest metadata of `role`, signed by `signers` alone."""
        path = self.newest(role)
        metadata: Any = Metadata.from_bytes(path.read_bytes())
        change(metadata.signed)
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(repository.signer(signer), append=True)
        path.write_bytes(metadata.to_bytes())

    def republish_freshness(self, now: int = NOW) -> None:
        release.refresh(self.folder, key(3), now=now)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def real_probe() -> None:
    """Ask for it, and a new release runs once in its cage as on a phone; other tests save the time."""


@pytest.fixture(autouse=True)
def probed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    runs: list[bytes] = []
    if "real_probe" not in request.fixturenames:
        monkeypatch.setattr(hardened, "probe_in_subprocess", runs.append)
    return runs


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Publisher]:
    folder = tmp_path / "repository"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Publisher(folder, f"http://127.0.0.1:{server.server_address[1]}")
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def phone(publisher: Publisher, tmp_path: Path) -> Trusted:
    """A phone that trusts the publisher's first root and has nothing installed."""
    publisher.publish()
    trusted = Trusted(tmp_path / "phone")
    trusted.init(publisher.root, schema_digest=SCHEMA)
    return trusted


def updated(phone: Trusted, publisher: Publisher, now: int = NOW) -> bytes:
    """The control of every case: the untouched release installs and loads."""
    onnx = phone.update(publisher.url, now=now).onnx
    assert phone.load(now).onnx == onnx
    return onnx


@pytest.mark.usefixtures("real_probe")
def test_update_over_http_then_offline(phone: Trusted, publisher: Publisher) -> None:
    found = phone.update(publisher.url, now=NOW)
    shutil.rmtree(publisher.folder)
    again = phone.load(NOW + 60)
    assert found == again and again.onnx == onnx_model(1.0)
    assert again.manifest["name"] == "demo" and again.expires_at == NOW + DAY
    with pytest.raises(TrustError, match="cannot be fetched"):
        phone.update(publisher.url, now=NOW + 60)
    assert phone.load(NOW + 60) == again


def test_update_from_a_folder(phone: Trusted, publisher: Publisher) -> None:
    assert phone.update(publisher.folder, now=NOW).onnx == phone.update(publisher.folder.as_uri(), now=NOW).onnx
    with pytest.raises(TrustError, match="neither an http address nor a folder"):
        phone.update("ftp://somewhere", now=NOW)


def test_nothing_installed_no_anchor_and_second_anchor(tmp_path: Path, phone: Trusted) -> None:
    with pytest.raises(TrustError, match="no release is installed"):
        phone.load(NOW)
    with pytest.raises(TrustError, match="no trust anchor"):
        Trusted(tmp_path / "other").load(NOW)
    with pytest.raises(TrustError, match="trusts another root"):
        phone.init(b"{}", schema_digest=SCHEMA)


def test_a_new_version_replaces_the_old(phone: Trusted, publisher: Publisher) -> None:
    updated(phone, publisher)
    publisher.publish(2)
    assert updated(phone, publisher) == onnx_model(2.0)


def test_a_model_seen_before_is_not_run_again(phone: Trusted, publisher: Publisher, probed: list[bytes]) -> None:
    updated(phone, publisher)
    publisher.republish_freshness(NOW + DAY - 60)
    assert updated(phone, publisher, NOW + DAY) == onnx_model(1.0)
    assert probed == [onnx_model(1.0)]
    publisher.publish(2, now=NOW + DAY)
    updated(phone, publisher, NOW + DAY)
    assert probed == [onnx_model(1.0), onnx_model(2.0)]


def test_a_full_disk_keeps_what_is_installed(
    phone: Trusted, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    updated(phone, publisher)
    publisher.publish(2)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TrustError, match=r"No space left on device.; free space"):
            phone.update(publisher.url, now=NOW)
    assert phone.load(NOW).manifest["version"] == 1
    (phone.folder / "installed.cbor").unlink()
    (phone.folder / "installed.cbor").mkdir()
    with pytest.raises(TrustError, match="is damaged"):
        phone.load(NOW)


# --- case 43: tampered model --------------------------------------------------------------------------------------


def test_case_43_tampered_onnx_on_the_server(phone: Trusted, publisher: Publisher) -> None:
    path = next(publisher.folder.glob("targets/demo/*.model.onnx"))
    good = path.read_bytes()
    path.write_bytes(onnx_model(99.0)[: len(good)])
    with pytest.raises(TrustError, match="refused"):
        phone.update(publisher.url, now=NOW)
    with pytest.raises(TrustError, match="no release is installed"):
        phone.load(NOW)
    path.write_bytes(good)
    updated(phone, publisher)


def test_case_43_tampered_onnx_on_the_phone(phone: Trusted, publisher: Publisher) -> None:
    onnx = updated(phone, publisher)
    path = phone.folder / "installed.cbor"
    data = bytearray(path.read_bytes())
    data[data.index(onnx) + len(onnx) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(TrustError, match="not the one that was signed"):
        phone.load(NOW)
    path.write_bytes(data[:-5])
    with pytest.raises(TrustError, match="damaged"):
        phone.load(NOW)
    path.unlink()
    updated(phone, publisher)


def test_case_43_manifest_of_another_model(phone: Trusted, publisher: Publisher) -> None:
    # Metadata signed 2-of-2 over a model that its manifest does not describe.
    other = onnx_model(7.0)
    signed = envelope.sign("release/1", manifest_of(onnx_model(8.0), 2).to_dict(), KEYS.pair)
    files_of = repository.SignedRepository(publisher.folder)
    files = {"demo/model.onnx": other, "demo/manifest.cbor": signed.to_bytes()}
    files_of.write_targets(files, {}, KEYS, NOW + DAY)
    publisher.republish_freshness()
    with pytest.raises(TrustError, match="not the one its manifest describes"):
        phone.update(publisher.url, now=NOW)


# --- case 44: rollback --------------------------------------------------------------------------------------------


def test_case_44_older_version_with_valid_signatures(phone: Trusted, publisher: Publisher, tmp_path: Path) -> None:
    shutil.copytree(publisher.folder, tmp_path / "old")
    publisher.publish(2)
    updated(phone, publisher)
    shutil.rmtree(publisher.folder)
    shutil.copytree(tmp_path / "old", publisher.folder)
    with pytest.raises(TrustError, match=r"refused.*version"):
        phone.update(publisher.url, now=NOW)
    assert phone.load(NOW).manifest["version"] == 2


def test_case_44_older_release_under_newer_metadata(phone: Trusted, publisher: Publisher) -> None:
    publisher.publish(2)
    updated(phone, publisher)
    onnx = onnx_model(1.0)
    signed = envelope.sign("release/1", manifest_of(onnx, 1).to_dict(), KEYS.pair)
    files_of = repository.SignedRepository(publisher.folder)
    files_of.write_targets({"demo/model.onnx": onnx, "demo/manifest.cbor": signed.to_bytes()}, {}, KEYS, NOW + DAY)
    publisher.republish_freshness()
    with pytest.raises(TrustError, match="version 1 is older than version 2"):
        phone.update(publisher.url, now=NOW)
    assert phone.load(NOW).manifest["version"] == 2


# --- case 45: expiry and freeze -----------------------------------------------------------------------------------


def test_case_45_expired_timestamp(phone: Trusted, publisher: Publisher) -> None:
    updated(phone, publisher)
    phone.load(NOW + DAY - 1)
    with pytest.raises(TrustError, match="timestamp metadata expired"):
        phone.load(NOW + DAY)
    with pytest.raises(TrustError, match="expired"):  # a server that keeps serving it: freeze
        phone.update(publisher.url, now=NOW + DAY)
    publisher.republish_freshness(NOW + DAY)
    updated(phone, publisher, NOW + DAY)


def test_case_45_clock_set_back(phone: Trusted, publisher: Publisher) -> None:
    updated(phone, publisher)
    phone.load(NOW - CLOCK_SKEW)
    with pytest.raises(TrustError, match="clock is behind"):
        phone.load(NOW - CLOCK_SKEW - 1)


def test_case_45_expired_manifest(phone: Trusted, publisher: Publisher) -> None:
    publisher.publish(2, expires_at=NOW + 600)
    updated(phone, publisher)
    with pytest.raises(TrustError, match="release has expired"):
        phone.load(NOW + 600)


@pytest.mark.parametrize(("role", "days"), [("snapshot", 7), ("targets", 90), ("root", 365)])
def test_case_45_other_roles_expire_too(publisher: Publisher, tmp_path: Path, role: str, days: int) -> None:
    onnx, long = onnx_model(), 4000 * DAY
    lives = replace(release.Lifetimes(long, long, long, long), **{role: days * DAY})
    manifest = manifest_of(onnx, expires_at=NOW + long)
    done = release.publish(onnx, manifest, publisher.folder, KEYS, now=NOW, lifetimes=lives)
    phone = Trusted(tmp_path / "phone")
    phone.init(done.root, schema_digest=SCHEMA)
    updated(phone, publisher)
    phone.load(NOW + days * DAY - 1)
    with pytest.raises(TrustError, match=f"{role} metadata expired"):
        phone.load(NOW + days * DAY)
    with pytest.raises(TrustError, match="expired"):
        phone.update(publisher.url, now=NOW + days * DAY)


# --- case 46: mix and match ---------------------------------------------------------------------------------------


def test_case_46_mix_and_match_on_the_server(phone: Trusted, publisher: Publisher) -> None:
    old = publisher.newest("targets").read_bytes()
    publisher.publish(2)
    path = publisher.newest("targets")
    new = path.read_bytes()
    path.write_bytes(old)  # last version's targets under this version's name
    with pytest.raises(TrustError, match="refused"):
        phone.update(publisher.url, now=NOW)
    path.write_bytes(new)
    updated(phone, publisher)


def test_case_46_mix_and_match_on_the_phone(phone: Trusted, publisher: Publisher) -> None:
    from model.canonical import decode, encode

    path = phone.folder / "installed.cbor"
    updated(phone, publisher)
    first = decode(path.read_bytes())
    publisher.publish(2)
    updated(phone, publisher)
    second = path.read_bytes()
    for part in ("timestamp", "snapshot", "targets", "manifest", "onnx"):
        path.write_bytes(encode({**decode(second), part: first[part]}))
        with pytest.raises(TrustError):
            phone.load(NOW)
    path.write_bytes(second)
    assert phone.load(NOW).manifest["version"] == 2


# --- case 47: threshold -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signers", [[key(1)], [key(2)], [key(1), key(9)], [key(3)], []])
def test_case_47_threshold_not_met(phone: Trusted, publisher: Publisher, signers: list[SigningKey]) -> None:
    publisher.resign("targets", signers)
    publisher.republish_freshness()
    with pytest.raises(TrustError, match="refused"):
        phone.update(publisher.url, now=NOW)
    publisher.resign("targets", [key(1), key(2)])
    publisher.republish_freshness()
    updated(phone, publisher)


def test_case_47_manifest_lacks_the_reviewer(phone: Trusted, publisher: Publisher) -> None:
    onnx = onnx_model(5.0)
    files_of = repository.SignedRepository(publisher.folder)
    for signers, good in (([key(1)], False), ([key(1), key(1)], False), ([key(1), key(9)], False), (KEYS.pair, True)):
        signed = envelope.sign("release/1", manifest_of(onnx, 2).to_dict(), signers)
        files_of.write_targets({"demo/model.onnx": onnx, "demo/manifest.cbor": signed.to_bytes()}, {}, KEYS, NOW + DAY)
        publisher.republish_freshness()
        if good:
            updated(phone, publisher)
        else:
            with pytest.raises(TrustError, match=r"manifest is refused.*1 of 2"):
                phone.update(publisher.url, now=NOW)


def test_case_47_root_that_lets_one_key_sign(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish()

    def weaken(root: Any) -> None:
        root.roles["targets"].threshold = 1

    publisher.resign("root", list(KEYS.pair), weaken)
    phone = Trusted(tmp_path / "phone")
    phone.init(release.bootstrap_root(publisher.folder), schema_digest=SCHEMA)
    with pytest.raises(TrustError, match="fewer than 2 keys"):
        phone.update(publisher.url, now=NOW)


# --- case 48: revoked keys ----------------------------------------------------------------------------------------


def test_case_48_revoked_key(phone: Trusted, publisher: Publisher, tmp_path: Path) -> None:
    updated(phone, publisher)
    old = tmp_path / "old"
    shutil.copytree(publisher.folder, old)
    new = ReleaseKeys(release=key(11), reviewer=key(12), online=key(13))
    release.rotate(publisher.folder, KEYS, new, now=NOW)
    assert phone.update(publisher.url, now=NOW).root_version == 2  # the control: the rotation itself is followed
    # The thief of the old keys publishes on: newer versions, all signed by revoked keys.
    onnx = onnx_model(6.0)
    for _ in range(3):
        release.publish(onnx, manifest_of(onnx, 3 + _), old, KEYS, now=NOW)
    shutil.copy(publisher.folder / "metadata" / "2.root.json", old / "metadata")
    with pytest.raises(TrustError, match="refused"):
        phone.update(old, now=NOW)
    assert phone.load(NOW).manifest["version"] == 1


def test_case_48_revocation_counts_for_the_installed_copy(phone: Trusted, publisher: Publisher) -> None:
    updated(phone, publisher)
    repository.SignedRepository(publisher.folder).write_root(
        ReleaseKeys(key(11), key(12), key(13)), [*KEYS.pair, key(11), key(12)], NOW + DAY
    )  # a new root alone: nothing is signed again yet
    with pytest.raises(TrustError):
        phone.update(publisher.url, now=NOW)
    with pytest.raises(TrustError, match="trusted signatures"):
        phone.load(NOW)


def test_case_48_root_signed_by_one_old_key_only(phone: Trusted, publisher: Publisher) -> None:
    updated(phone, publisher)
    repository.SignedRepository(publisher.folder).write_root(
        ReleaseKeys(key(11), key(12)), [key(1), key(11), key(12)], NOW + DAY
    )
    with pytest.raises(TrustError, match="refused"):
        phone.update(publisher.url, now=NOW)
    assert phone.load(NOW).root_version == 1


def place(publisher: Publisher, onnx: bytes, manifest: ReleaseManifest) -> None:
    """Put a release in the repository with every signature in order, past the publisher's own checks."""
    signed = envelope.sign("release/1", manifest.to_dict(), KEYS.pair)
    files = {"demo/model.onnx": onnx, "demo/manifest.cbor": signed.to_bytes()}
    repository.SignedRepository(publisher.folder).write_targets(files, {}, KEYS, NOW + DAY)
    publisher.republish_freshness()


def test_signed_releases_that_a_phone_still_refuses(phone: Trusted, publisher: Publisher) -> None:
    onnx = onnx_model(2.0)
    failed = GateFigures(0.5, 0.01, 0.01, False, ("the private AUC is too low",))
    for changes, words in (({"gate": failed}, "did not pass its gate"), ({"name": "other"}, "is of release 'other'")):
        place(publisher, onnx, manifest_of(onnx, 2, **changes))
        with pytest.raises(TrustError, match=words):
            phone.update(publisher.url, now=NOW)
    place(publisher, onnx, manifest_of(onnx, 2))
    assert updated(phone, publisher) == onnx


# --- cases 50 and 53, and what else a signed release may not be ---------------------------------------------------


def test_case_50_a_signed_release_is_still_checked(phone: Trusted, publisher: Publisher) -> None:
    updated(phone, publisher)
    publisher.publish(2, onnx=onnx_model(operator="Softplus"))
    with pytest.raises(ModelError, match="Softplus"):
        phone.update(publisher.url, now=NOW)
    assert phone.load(NOW).manifest["version"] == 1


@pytest.mark.usefixtures("real_probe")
def test_case_51_a_signed_bomb_is_stopped_at_install(phone: Trusted, publisher: Publisher) -> None:
    updated(phone, publisher)
    bomb = ModelProto.FromString(onnx_model(2.0))
    for name, shape in (("tall", (1 << 15, 1)), ("wide", (1, 1 << 15))):
        bomb.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    bomb.graph.node.insert(0, helper.make_node("Add", ["tall", "wide"], ["square"]))
    bomb.graph.node.insert(1, helper.make_node("ReduceSum", ["square"], ["huge"], keepdims=0))
    bomb.graph.node[-1].input[0] = "huge"
    publisher.publish(2, onnx=bomb.SerializeToString())
    with pytest.raises(ModelError, match="first run under limits"):
        phone.update(publisher.url, now=NOW)
    assert phone.load(NOW).manifest["version"] == 1


def test_case_53_schema_digest_mismatch(phone: Trusted, publisher: Publisher) -> None:
    updated(phone, publisher)
    publisher.publish(2, schema_digest="ab" * 32)
    with pytest.raises(TrustError, match="another feature schema"):
        phone.update(publisher.url, now=NOW)
    assert phone.load(NOW).manifest["version"] == 1
    publisher.publish(3)
    updated(phone, publisher)


def test_case_53_columns_of_the_model_do_not_fit_the_manifest(phone: Trusted, publisher: Publisher) -> None:
    publisher.publish(2, features=("income", "age"), reasons=("a", "b"))
    with pytest.raises(ModelError, match="takes 1 features where this phone's schema has 2"):
        phone.update(publisher.url, now=NOW)


def test_several_releases_need_a_name(phone: Trusted, publisher: Publisher, tmp_path: Path) -> None:
    other = onnx_model(3.0)
    release.publish(other, manifest_of(other, name="second"), publisher.folder, KEYS, now=NOW)
    with pytest.raises(TrustError, match="holds 2 releases"):
        phone.update(publisher.url, now=NOW)
    named = Trusted(tmp_path / "named")
    named.init(publisher.root, schema_digest=SCHEMA, name="second")
    assert named.update(publisher.url, now=NOW).onnx == other
    absent = Trusted(tmp_path / "absent")
    absent.init(publisher.root, schema_digest=SCHEMA, name="third")
    with pytest.raises(TrustError, match=r"no file 'third/manifest\.cbor'"):
        absent.update(publisher.url, now=NOW)


def test_two_updates_at_once(phone: Trusted, publisher: Publisher) -> None:
    with phone._locked(), pytest.raises(TrustError, match="another update is running"):
        phone.update(publisher.url, now=NOW)
    updated(phone, publisher)


# --- the network side ---------------------------------------------------------------------------------------------


def serve_once(answer: bytes) -> Iterator[str]:
    """A server that sends `answer` and then keeps the connection open."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def run() -> None:
            connection, _ = server.accept()
            taken.append(connection)
            connection.recv(1 << 16)
            connection.sendall(answer)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/file"
        thread.join()
        for connection in taken:
            connection.close()


@pytest.fixture
def stalling() -> Iterator[str]:
    yield from serve_once(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")


def test_a_server_that_stalls_is_left(stalling: str) -> None:
    with pytest.raises(DownloadError, match="connection broke"):
        HttpFetcher(socket_seconds=0.05).download_bytes(stalling, 100)


def test_a_server_that_drips_is_left(stalling: str) -> None:
    with pytest.raises(SlowRetrievalError, match="too slowly"):
        HttpFetcher(socket_seconds=5, file_seconds=0).download_bytes(stalling, 100)


def test_only_http_and_the_folder_itself(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    for url in (f"file://{tmp_path}/secret", "ftp://127.0.0.1/x"):
        with pytest.raises(DownloadError, match="neither http nor https"):
            HttpFetcher().download_bytes(url, 100)
    with pytest.raises(DownloadHTTPError, match="404"):
        HttpFetcher().download_bytes(f"{publisher.url}/absent", 100)
    fetcher = FolderFetcher(publisher.folder)
    (publisher.folder / "link").symlink_to(tmp_path / "secret")
    for name in ("../secret", "%2e%2e/secret", "link", "absent"):
        with pytest.raises(DownloadHTTPError, match="not in the repository"):
            fetcher.download_bytes(f"{fetcher.base}/{name}", 100)
    (publisher.folder / "here").write_bytes(b"here")
    assert fetcher.download_bytes(f"{fetcher.base}/here", 100) == b"here"


# --- the offline rules against python-tuf's own client ------------------------------------------------------------


Parts = dict[str, bytes]
SIGNERS: dict[str, tuple[SigningKey, ...]] = {
    "root": KEYS.pair,
    "timestamp": (key(3),),
    "snapshot": (key(3),),
    "targets": KEYS.pair,
}


def build(signers: dict[str, tuple[SigningKey, ...]], late: set[str], wrong: set[str]) -> Parts:
    """Metadata of one repository: `late` roles have expired at NOW, `wrong` roles are not what is named above them."""

    def written(part: Any, role: str) -> bytes:
        metadata: Any = Metadata(part)
        for signer in signers[role]:
            metadata.sign(repository.signer(signer), append=True)
        return bytes(metadata.to_bytes())

    def expires(role: str) -> Any:
        return repository.utc(NOW - 1 if role in late else NOW + DAY)

    root = Root(expires=expires("root"))
    for role, names in SIGNERS.items():
        root.roles[role].threshold = len(names)
        for name in names:
            root.add_key(repository.public_key(name), role)
    targets = written(Targets(version=2, expires=expires("targets")), "targets")
    named = b"{}" if "targets" in wrong else targets
    snapshot = Snapshot(version=2, expires=expires("snapshot"), meta={"targets.json": repository.describe(2, named)})
    body = written(snapshot, "snapshot")
    stamp = Timestamp(version=2, expires=expires("timestamp"))
    stamp.snapshot_meta = repository.describe(3 if "snapshot" in wrong else 2, body)
    return {
        "root": written(root, "root"),
        "timestamp": written(stamp, "timestamp"),
        "snapshot": body,
        "targets": targets,
    }


def ours(parts: Parts) -> bool:
    try:
        verify([parts["root"]], parts["timestamp"], parts["snapshot"], parts["targets"], now=NOW)
    except TrustError:
        return False
    return True


def theirs(parts: Parts, folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    metadata = folder / "repository" / "metadata"
    metadata.mkdir(parents=True)
    for role, name in (("timestamp", "timestamp"), ("snapshot", "2.snapshot"), ("targets", "2.targets")):
        (metadata / f"{name}.json").write_bytes(parts[role])
    try:
        Sync(str(folder / "repository"), folder / "state", parts["root"], NOW)
    except TrustError:
        return False
    return True


KEY_SETS = st.sampled_from([(), (key(1),), (key(3),), (key(1), key(2)), (key(1), key(3)), (key(2), key(9)), (key(9),)])
COMMON = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@COMMON
@given(
    signers=st.dictionaries(st.sampled_from(sorted(SIGNERS)), KEY_SETS, max_size=2),
    late=st.sets(st.sampled_from(sorted(SIGNERS)), max_size=1),
    wrong=st.sets(st.sampled_from(["snapshot", "targets"]), max_size=1),
)
def test_the_offline_rules_judge_as_python_tuf_does(
    signers: dict[str, tuple[SigningKey, ...]], late: set[str], wrong: set[str], tmp_path: Path
) -> None:
    parts = build({**SIGNERS, **signers}, late, wrong)
    assert ours(parts) == theirs(parts, tmp_path / "theirs")


@COMMON
@given(role=st.sampled_from(sorted(SIGNERS)), place=st.floats(0, 0.999), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_taken_where_python_tuf_refuses_it(
    role: str, place: float, bit: int, tmp_path: Path
) -> None:
    parts = build(SIGNERS, set(), set())
    body = bytearray(parts[role])
    body[int(place * len(body))] ^= 1 << bit
    parts[role] = bytes(body)
    assert not ours(parts) or theirs(parts, tmp_path / "theirs")


def test_both_accept_the_untouched_metadata(tmp_path: Path) -> None:
    good = build(SIGNERS, set(), set())
    assert ours(good) and theirs(good, tmp_path / "theirs")
    for late in SIGNERS:
        assert not ours(build(SIGNERS, {late}, set()))


def test_forms_that_python_tuf_takes_and_we_do_not() -> None:
    good = build(SIGNERS, set(), set())
    twice = good["timestamp"].replace(b'"version":2}', b'"version":2,"version":2}', 1)
    for changed in ({"timestamp": twice}, {"targets": b"[" * 100_000}, {"snapshot": b"\xff"}):
        assert not ours({**good, **changed})


def test_one_key_under_two_ids_does_not_count_twice() -> None:
    root: Any = Metadata(Root(expires=repository.utc(NOW + DAY)))
    names = [SSlibKey(name, "ed25519", "ed25519", {"public": key(1).public_bytes.hex()}) for name in ("aa", "bb")]
    for role in SIGNERS:
        root.signed.roles[role].threshold = 2
        for name in names:
            root.signed.add_key(name, role)
    for name in names:
        private = Ed25519PrivateKey.from_private_bytes(key(1).private_bytes())
        root.sign(CryptoSigner(private, name), append=True)
    good = build(SIGNERS, set(), set())
    with pytest.raises(TrustError, match="not an Ed25519 key under its own digest"):
        verify([root.to_bytes()], good["timestamp"], good["snapshot"], good["targets"], now=NOW)


def rooted(version: int, signers: tuple[SigningKey, ...], names: tuple[SigningKey, ...] = KEYS.pair) -> bytes:
    """A root that names `names` (and the online key 3), signed by `signers`."""
    root = Root(version=version, expires=repository.utc(NOW + DAY))
    for role, holders in {**SIGNERS, "root": names, "targets": names}.items():
        root.roles[role].threshold = len(holders)
        for holder in holders:
            root.add_key(repository.public_key(holder), role)
    metadata: Any = Metadata(root)
    for signer in signers:
        metadata.sign(repository.signer(signer), append=True)
    return bytes(metadata.to_bytes())


def test_the_chain_of_roots() -> None:
    good, new = build(SIGNERS, set(), set()), (key(11), key(12))
    rest = (good["timestamp"], good["snapshot"])
    first, both = rooted(1, KEYS.pair), (*KEYS.pair, *new)
    assert verify([first, rooted(2, KEYS.pair)], *rest, good["targets"], now=NOW).root_version == 2
    with pytest.raises(TrustError, match="targets metadata has 0 of 2"):  # the new pair is followed, the old is out
        verify([first, rooted(2, both, new)], *rest, good["targets"], now=NOW)
    for signers in (new, (key(1), *new), KEYS.pair):  # not signed by enough of the old pair, or of the new
        with pytest.raises(TrustError, match=r"root metadata has . of 2 trusted signatures"):
            verify([first, rooted(2, signers, new)], *rest, good["targets"], now=NOW)
    for version in (1, 3):
        with pytest.raises(TrustError, match=f"root version {version} follows version 1"):
            verify([first, rooted(version, KEYS.pair)], *rest, good["targets"], now=NOW)
    with pytest.raises(TrustError, match="0 root files"):
        verify([], *rest, good["targets"], now=NOW)


def test_one_role_does_not_pass_for_another() -> None:
    good = build({**SIGNERS, "timestamp": KEYS.pair, "snapshot": KEYS.pair}, set(), set())
    with pytest.raises(TrustError, match="a file is not timestamp metadata"):
        verify([good["root"]], good["targets"], good["snapshot"], good["targets"], now=NOW)


def test_delegations_are_not_followed() -> None:
    top = Targets(version=2, expires=repository.utc(NOW + DAY), delegations=Delegations({}, {}))
    metadata: Any = Metadata(top)
    for signer in KEYS.pair:
        metadata.sign(repository.signer(signer), append=True)
    good, targets = build(SIGNERS, set(), set()), bytes(metadata.to_bytes())

    def named(part: Any) -> bytes:
        signed: Any = Metadata(part)
        signed.sign(repository.signer(key(3)))
        return bytes(signed.to_bytes())

    expires = repository.utc(NOW + DAY)
    snapshot = named(Snapshot(version=2, expires=expires, meta={"targets.json": repository.describe(2, targets)}))
    stamp = Timestamp(version=2, expires=expires, snapshot_meta=repository.describe(2, snapshot))
    with pytest.raises(TrustError, match="delegates to other keys"):
        verify([good["root"]], named(stamp), snapshot, targets, now=NOW)
