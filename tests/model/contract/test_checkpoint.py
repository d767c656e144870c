"""Checkpoints: the note format, whose signatures count, and what is refused."""

from __future__ import annotations

import base64

import pytest

from model.contract.checkpoint import Checkpoint, key_hash, open_note, sign_note, verifier_key
from model.contract.envelope import SigningKey
from model.contract.merkle import leaf_hash
from model.errors import ContractError, SignatureError

LOG, WITNESS = (SigningKey.from_private_bytes(bytes([n]) * 32) for n in (11, 12))
HEAD = Checkpoint("pocketscore.example/log", 3, leaf_hash(b"x"))
VERIFIERS = {"log": LOG.public_bytes, "reviewer": WITNESS.public_bytes}


def test_the_form_of_a_note() -> None:
    lines = sign_note(HEAD, [("log", LOG)]).decode().split("\n")
    assert lines[:4] == ["pocketscore.example/log", "3", base64.b64encode(HEAD.root).decode(), ""]
    dash, name, blob = lines[4].split(" ")
    raw = base64.b64decode(blob)
    assert (dash, name, lines[5:]) == ("—", "log", [""])
    assert raw[:4] == key_hash("log", LOG.public_bytes) and raw[4:] == LOG.sign(HEAD.text().encode())
    assert verifier_key("log", LOG.public_bytes).startswith(f"log+{raw[:4].hex()}+AQ"[:14])


def test_a_published_verifier_key_has_our_key_hash() -> None:
    # The key of the signed-note example of Go's sumdb.
    name, hashed, key = ["PeterNeumann", "c74f20a3", "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"]
    public = base64.b64decode(key)[1:]
    assert key_hash(name, public).hex() == hashed
    assert verifier_key(name, public) == f"{name}+{hashed}+{key}"


def test_the_published_signed_note_opens_up_to_its_text() -> None:
    """The note of Go's `note` package verifies with our line parser; its text is then no checkpoint."""
    public = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")[1:]
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    line = (
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    with pytest.raises(ContractError, match="origin, size and root"):
        open_note((text + "\n" + line).encode(), {"PeterNeumann": public})
    with pytest.raises(SignatureError, match="does not fit"):
        open_note((text.replace("If", "Of") + "\n" + line).encode(), {"PeterNeumann": public})


def test_round_trip_with_a_witness() -> None:
    note = sign_note(HEAD, [("log", LOG), ("reviewer", WITNESS)])
    assert open_note(note, VERIFIERS, threshold=2) == HEAD
    assert open_note(note, {"log": LOG.public_bytes}) == HEAD


def test_one_name_counts_once_and_strangers_do_not() -> None:
    twice = sign_note(HEAD, [("log", LOG), ("log", LOG)])
    with pytest.raises(SignatureError, match="1 of 2"):
        open_note(twice, VERIFIERS, threshold=2)
    for verifiers in ({}, {"log": WITNESS.public_bytes}, {"other": LOG.public_bytes}):
        with pytest.raises(SignatureError, match="0 of 1"):
            open_note(twice, verifiers)
    with pytest.raises(SignatureError, match="0 of 1"):
        open_note(twice, {}, threshold=0)


def test_case_60_a_changed_head_is_refused() -> None:
    note = sign_note(HEAD, [("log", LOG)])
    assert open_note(note, VERIFIERS) == HEAD
    with pytest.raises(SignatureError, match="does not fit"):
        open_note(note.replace(b"\n3\n", b"\n2\n"), VERIFIERS)


@pytest.mark.parametrize(
    "text",
    [
        "o\n3\n",
        "o\n03\n{root}\n",
        "o\n-1\n{root}\n",
        "o\n3\nAAAA\n",
        "o\n3\n{root}\nextension\n",
        "\n3\n{root}\n",
        "o\n3\n{root}x\n",
        "o\n1" + "0" * 30 + "\n{root}\n",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    root = base64.b64encode(HEAD.root).decode()
    assert Checkpoint.from_text(f"o\n3\n{root}\n") == Checkpoint("o", 3, HEAD.root)
    with pytest.raises(ContractError):
        Checkpoint.from_text(text.replace("{root}", root))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda n: n[:-1],
        lambda n: n.replace(b"\n\n", b"\n"),
        lambda n: n + b"\n",
        lambda n: n + b"- log AAAA\n",
        lambda n: n + b"\xe2\x80\x94 log !!!!\n",
        lambda n: n + b"\xff\n",
        lambda n: n.replace(b"log", b"l\tg"),
        lambda n: n + n.split(b"\n\n")[1] * 16,
        lambda n: n + b"x" * 20_000,
    ],
)
def test_other_notes_are_refused(spoil: object) -> None:
    assert callable(spoil)
    with pytest.raises(ContractError):
        open_note(spoil(sign_note(HEAD, [("log", LOG)])), VERIFIERS)


def test_signer_names_have_neither_space_nor_plus() -> None:
    for name in ("", "a b", "a+b"):
        with pytest.raises(ContractError, match="signer name"):
            sign_note(HEAD, [(name, LOG)])
