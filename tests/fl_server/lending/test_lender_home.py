"""The lender's home: keys 0600, two signatures on every release, whole or not at all."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from fl_server.lending.keys import LenderHome, read_keyring
from model.contract.envelope import SigningKey, sign
from model.errors import InputError, SignatureError, TrustError


def test_keys_are_readable_by_their_owner_alone(home: LenderHome) -> None:
    for name in ("signing.key", "hpke.key"):
        assert stat.S_IMODE((home.path / "keys" / name).stat().st_mode) == 0o600
    home.book().close()
    assert stat.S_IMODE((home.path / "book.sqlite").stat().st_mode) == 0o600
    (home.path / "keys" / "hpke.key").chmod(0o644)
    with pytest.raises(TrustError, match="chmod 600"):
        LenderHome.open(home.path)


def test_a_home_is_made_once_and_whole(home: LenderHome, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty folder"):
        LenderHome.init(home.path, "Again", "again", ["x"])
    with pytest.raises(InputError, match="audience"):
        LenderHome.init(tmp_path / "odd", "Odd", "with space", ["x"])
    assert not (tmp_path / "odd").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError):
        LenderHome.init(tmp_path / "file" / "inner", "Odd", "odd", ["x"])
    with pytest.raises(InputError, match="lender init"):
        LenderHome.open(tmp_path / "nowhere")


def test_a_malformed_home_says_so(home: LenderHome) -> None:
    (home.path / "lender.toml").write_text("name = 3 =")
    with pytest.raises(InputError, match=r"lender\.toml"):
        LenderHome.open(home.path)


def test_pricing_and_database_can_be_set(home: LenderHome, now: int) -> None:
    with (home.path / "lender.toml").open("a") as file:
        file.write(
            'database = "sqlite:///elsewhere.sqlite"\n[pricing]\ncap = 0.02\nlimits = [9000, 8000, 7000, 1, 0]\n'
        )
    opened = LenderHome.open(home.path)
    assert opened.database == "sqlite:///elsewhere.sqlite"
    assert opened.card(now).rate_card.bands[0].limit == 9_000
    assert LenderHome.open(home.path, "sqlite://").database == "sqlite://"


def test_a_release_needs_both_signatures_and_the_same_keys(home: LenderHome, keys: Any, make_manifest: Any) -> None:
    other = make_manifest(model_digest="ee" * 32)
    with pytest.raises(SignatureError):
        home.trust(sign("release/1", other.to_dict(), [keys.release]))
    with pytest.raises(SignatureError):
        home.trust(sign("release/1", other.to_dict(), [keys.release, SigningKey.generate()]))
    with pytest.raises(TrustError, match="other release keys"):
        home.trust(keys.sign(other), {keys.release.keyid: keys.release.public_bytes})
    assert set(home.releases()) == {"ab" * 32}
    home.trust(keys.sign(other))
    assert set(home.releases()) == {"ab" * 32, "ee" * 32}


def test_a_manifest_edited_on_disk_is_found(home: LenderHome) -> None:
    (file,) = (home.path / "releases").iterdir()
    file.write_bytes(file.read_bytes().replace(b"pocketscore", b"pocketscorf", 1))
    with pytest.raises((SignatureError, TrustError)):
        home.releases()


def test_one_key_is_not_two(tmp_path: Path, keys: Any, make_manifest: Any) -> None:
    home = LenderHome.init(tmp_path / "single", "Single", "single", ["personal-loan"])
    with pytest.raises(TrustError, match="no release keys"):
        home.trust(keys.sign(make_manifest()))
    with pytest.raises(TrustError, match="two or more"):
        home.trust(keys.sign(make_manifest()), {keys.release.keyid: keys.release.public_bytes})
    stranger = SigningKey.generate()
    with pytest.raises(SignatureError):
        home.trust(keys.sign(make_manifest()), {**keys.ring, stranger.keyid: stranger.public_bytes})
    assert not (home.path / "trust.json").exists()  # a key ring that failed is not kept
    assert home.trust(keys.sign(make_manifest()), keys.ring).version == 1


def test_key_rings_are_read_from_json(tmp_path: Path, keys: Any) -> None:
    path = tmp_path / "ring.json"
    path.write_text(json.dumps([key.hex() for key in keys.ring.values()]))
    assert read_keyring(path) == keys.ring
    path.write_text(json.dumps({name: key.hex() for name, key in keys.ring.items()}))
    assert read_keyring(path) == keys.ring
    for wrong in ("3", '["zz"]', "{"):
        path.write_text(wrong)
        with pytest.raises(InputError):
            read_keyring(path)


def test_other_lenders_cards_stand_beside_the_own(home: LenderHome, tmp_path: Path, now: int) -> None:
    other = LenderHome.init(tmp_path / "other", "Other", "other", ["personal-loan"])
    (home.path / "cards").mkdir()
    (home.path / "cards" / "other.cbor").write_bytes(other.card(now).signed(other.signing).to_bytes())
    assert [card.name for card in home.cards(now)] == ["Example Finance", "Other"]
