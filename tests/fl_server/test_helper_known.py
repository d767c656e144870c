"""Who a helper says it is, and whom it serves, against what address and signers say; one helper really behind TLS."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fl_server.helper_https import HttpsHelper
from fl_server.helper_known import MAX_ABOUT, read_about, require_known
from fl_server.review.helper.address import write_address
from fl_server.review.helper.home import HelperHome
from fl_server.review.helper.records import read_log
from model.contract.address import HelperAddress
from model.contract.envelope import SigningKey
from model.errors import InputError, RunError

SIGNERS = {"coordinator": SigningKey.generate(), "reviewer": SigningKey.generate()}
PUBLIC = {role: key.public_bytes for role, key in SIGNERS.items()}
OTHER = SigningKey.generate().public_bytes
NAMES, LONG = ("helper_key", "signing_key", "coordinator", "reviewer"), "y" * MAX_ABOUT


class Told(HttpsHelper):
    """A line that ends in words."""

    def __init__(self, told: bytes) -> None:
        self._told = told

    def about(self) -> bytes:
        return self._told


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> HelperHome:
    return HelperHome.init(tmp_path_factory.mktemp("made") / "helper", PUBLIC)


@pytest.fixture(scope="module")
def address(home: HelperHome) -> HelperAddress:
    return HelperAddress.from_json(write_address(home, "https://127.0.0.1:1").read_text())


def told(home: HelperHome, **changes: str) -> Told:
    trusted = {role: key.hex() for role, key in PUBLIC.items()}
    return Told(json.dumps({**home.about(), **trusted, **changes}).encode())


def test_the_helper_of_the_address_that_serves_these_signers_is_known(home: HelperHome, address: HelperAddress) -> None:
    require_known(told(home), address, PUBLIC)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"coordinator": OTHER.hex()}, "trusts another coordinator than --keys"),
        ({"reviewer": OTHER.hex()}, "trusts another reviewer than --keys"),
        ({"coordinator": PUBLIC["reviewer"].hex(), "reviewer": OTHER.hex()}, "coordinator and another reviewer"),
        ({"coordinator": "", "reviewer": ""}, "trusts nobody yet"),
        ({"helper_key": OTHER.hex()}, "has other keys than its address"),
        ({"signing_key": OTHER.hex()}, "has other keys than its address"),
    ],
)
def test_another_is_one_sentence(
    home: HelperHome, address: HelperAddress, changes: dict[str, str], sentence: str
) -> None:
    with pytest.raises((InputError, RunError), match=sentence) as refused:
        require_known(told(home, **changes), address, PUBLIC)
    assert "\n" not in str(refused.value)


def _about(**changes: object) -> bytes:
    return json.dumps({**dict.fromkeys(NAMES, "ab"), **changes}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * MAX_ABOUT,
        _about(reviewer=None),
        _about(helper_key=7),
        _about(x="y" * MAX_ABOUT),
    ],
)
def test_what_does_not_say_who_it_is_is_one_sentence(data: bytes) -> None:
    with pytest.raises(RunError, match="does not say who it is"):
        read_about(data)


def test_what_else_is_told_is_left_out() -> None:
    assert read_about(_about(log_head="cd")) == dict.fromkeys(
        ("helper_key", "signing_key", "coordinator", "reviewer"), "ab"
    )


@contextmanager
def serving(home: HelperHome) -> Iterator[HelperAddress]:
    """The helper's own process, and the address it wrote."""
    command = [sys.executable, "-m", "fl_server.review", "helper", "serve", str(home.path), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and "listening" in process.stdout.readline()
        yield HelperAddress.from_json((home.path / "address.json").read_text())
    finally:
        process.kill()
        process.communicate(timeout=20)


def line(address: HelperAddress) -> HttpsHelper:
    key = bytes.fromhex(address.signing_key)
    return HttpsHelper(address.url, address.certificate, key, SIGNERS["coordinator"], seconds=10.0)


@pytest.mark.integration
def test_a_helper_in_its_own_process_says_who_it_is(home: HelperHome, tmp_path: Path) -> None:
    with serving(home) as address:
        require_known(line(address), address, PUBLIC)
        with pytest.raises(InputError, match="another reviewer than --keys"):
            require_known(line(address), address, {**PUBLIC, "reviewer": OTHER})
        other = HelperHome.init(tmp_path / "other", PUBLIC)
        swapped = HelperAddress.from_json(write_address(other, address.url).read_text())
        with pytest.raises(RunError, match="shows another certificate than its address"):
            require_known(line(swapped), swapped, PUBLIC)
    assert read_log(home.store, home.signing.public_bytes) == []  # asking who it is is no event


def test_nobody_there_is_one_sentence_at_once(home: HelperHome) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    address = HelperAddress.from_json(write_address(home, f"https://127.0.0.1:{port}").read_text())
    with pytest.raises(RunError, match=r"^no helper answers at 127\.0\.0\.1:\d+ \(.*\); start it with .*\Z"):
        require_known(line(address), address, PUBLIC)
