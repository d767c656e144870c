"""The phone's secret: kept tightly, refused when it is not, and every derived key its own."""

import os

import pytest

from fl_client.keystore import FileKeyStore, PassphraseKeyStore, derive
from model.errors import InputError


def test_a_file_key_comes_back_and_is_private(tmp_path):
    store = FileKeyStore(tmp_path / "key")
    root = store.create()
    assert len(root) == 32
    assert store.load() == root
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_looser_mode_is_refused(tmp_path, mode):
    store = FileKeyStore(tmp_path / "key")
    store.create()
    os.chmod(store.path, mode)
    with pytest.raises(InputError, match="chmod 600"):
        store.load()
    os.chmod(store.path, 0o600)
    assert len(store.load()) == 32


def test_a_key_is_never_replaced(tmp_path):
    store = FileKeyStore(tmp_path / "key")
    root = store.create()
    with pytest.raises(InputError, match="exists already"):
        store.create()
    assert store.load() == root


def test_a_link_a_folder_and_a_short_key_are_refused(tmp_path):
    FileKeyStore(tmp_path / "key").create()
    (tmp_path / "link").symlink_to(tmp_path / "key")
    (tmp_path / "short").write_bytes(b"abc")
    os.chmod(tmp_path / "short", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("link", "short", "missing", "folder"):
        with pytest.raises(InputError):
            FileKeyStore(tmp_path / name).load()


def test_an_unwritable_folder_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        FileKeyStore(tmp_path / "nowhere" / "key").create()


def test_a_passphrase_wraps_the_key(tmp_path, monkeypatch):
    monkeypatch.setattr("fl_client.keystore.SCRYPT_N", 1 << 8)
    root = PassphraseKeyStore(tmp_path / "key", lambda: "correct horse").create()
    assert PassphraseKeyStore(tmp_path / "key", lambda: "correct horse").load() == root
    assert root not in (tmp_path / "key").read_bytes()
    with pytest.raises(InputError, match="passphrase does not open"):
        PassphraseKeyStore(tmp_path / "key", lambda: "battery staple").load()
    with pytest.raises(InputError, match="empty"):
        PassphraseKeyStore(tmp_path / "key", lambda: "").load()


def test_a_damaged_passphrase_file_is_refused(tmp_path):
    (tmp_path / "key").write_bytes(b"\xa0")
    os.chmod(tmp_path / "key", 0o600)
    with pytest.raises(InputError, match="not a passphrase key"):
        PassphraseKeyStore(tmp_path / "key", lambda: "x").load()


def test_labels_and_roots_separate_keys():
    keys = {derive(root, label) for root in (b"a" * 32, b"b" * 32) for label in ("store/records", "store/names")}
    assert len(keys) == 4
    assert derive(b"a" * 32, "x") == derive(b"a" * 32, "x")
