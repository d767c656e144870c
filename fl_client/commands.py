"""The commands of `pocketscore-device`: parsed arguments and the time in, what to print out (spec 9.10).

Rooms are imported inside the commands: a command pays for what it uses, and `score` has 500 ms in all.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from model.errors import InputError, PocketScoreError

if TYPE_CHECKING:
    from fl_client.device import Phone
    from fl_client.home import DeviceHome
    from fl_client.scoring import Scorer
    from model.contract.consent import ConsentReceipt

Result = Mapping[str, Any]


def init(args: argparse.Namespace, now: int) -> Result:
    """Make a home: a fresh key, an empty encrypted store, the root you trust, the lenders you chose."""
    from fl_client.home import DeviceHome, read_bytes, read_schema

    cards = [read_bytes(path, "lender's card") for path in args.lender]
    home = DeviceHome.create(
        args.home,
        repo=args.repo,
        root=read_bytes(args.root, "root of trust"),
        cards=cards,
        now=now,
        passphrase=(lambda: _passphrase(args)) if args.passphrase or args.passphrase_file else None,
        schema=read_schema(args.schema) if args.schema else None,
    )
    return {"home": str(home.path), "key": home.settings.key, "lenders": len(cards)}


def consent(args: argparse.Namespace, now: int) -> Result:
    """Agree to be scored for one lender. --deny SOURCE leaves a source unread; that does not count against you."""
    from fl_client.home import read_bytes

    home = _home(args)
    if args.lender:
        args.to = home.add_lender(read_bytes(args.lender, "lender's card"), now).audience
    phone, card = _phone(home), home.lender(args.to, now)
    consents = phone.consents(card)
    purpose = args.purpose or card.purposes[0]
    pack = home.trusted.load(now).manifest["policy_pack"]
    receipt = consents.give(home.schema(), card, purpose=purpose, policy_pack=pack, now=now, denied=args.deny)
    sent = home.post("consent", consents.release(receipt, card, home.egress(now)))
    return {**receipt.to_dict(), "lenders_copy": str(sent)}


def withdraw(args: argparse.Namespace, now: int) -> Result:
    """Take consent back: no score is made for this lender until you agree again."""
    home = _home(args)
    phone, card = _phone(home), home.lender(args.to, now)
    consents = phone.consents(card)
    receipt = consents.withdraw(args.purpose or card.purposes[0], now)
    sent = home.post("consent", consents.release(receipt, card, home.egress(now)))
    return {**receipt.to_dict(), "lenders_copy": str(sent)}


def update(args: argparse.Namespace, now: int) -> Result:
    """Fetch and verify the newest release (the one networked command), and drop events past their retention."""
    home = _home(args)
    release = home.trusted.update(args.repo or home.settings.repo, now=now)
    dropped = home.store.retain(home.day(now) - home.settings.retention_days)
    manifest = release.manifest
    shown = {name: manifest[name] for name in ("name", "version", "model_digest", "policy_pack")}
    return {**shown, "expires_at": release.expires_at, "events_dropped": dropped}


def score(args: argparse.Namespace, now: int) -> Result:
    """Score offline with the last verified release; only sealed bytes for one lender reach the outbox."""
    from fl_client.device import explain_phone, preview, score_phone
    from fl_client.home import write_whole

    home, written = _home(args), []
    card = home.lender(args.to, now)
    egress = home.egress(now)

    def deliver(sealed: bytes) -> None:
        written.append(write_whole(args.out, sealed) if args.out else home.post("score", sealed))

    if args.after_decline:
        done = explain_phone(_phone(home), card, egress, now=now, ref=args.ref)
        deliver(done.sealed)
    else:
        scorer, phone = _scorer(home, now), _phone(home)
        options = {"now": now, "purpose": args.purpose, "ref": args.ref, "start_day": home.day(now)}
        if args.preview:
            return {**preview(phone, scorer, card, **options).to_dict(), "left_the_phone": "nothing"}
        done = score_phone(phone, scorer, card, egress, deliver=deliver, **options)
    sent = list(done.own_copy.lender_reasons) if args.after_decline else []
    return {**done.own_copy.to_dict(), "sealed": str(written[0]), "bytes": len(done.sealed), "reasons_sent": sent}


def reasons(args: argparse.Namespace, now: int) -> Result:
    """Your own copy of a score, with its reasons in order, and what the lender would get after a decline."""
    from fl_client.device import own_copy

    home = _home(args)
    own = own_copy(_phone(home), home.lender(args.to, now), args.ref)
    return {**own.to_dict(), "lender_would_get": list(own.lender_reasons)}


def join(args: argparse.Namespace, now: int) -> Result:
    """Agree to take part in training for a purpose: only masked or noised sums are made of what you add."""
    from fl_client.consent import TrainingConsent
    from model.policy.pack import load_pack

    load_pack(args.pack)
    home = _home(args)
    receipt = TrainingConsent(home.store).give(args.purpose, args.pack, now)
    return {**receipt.to_dict(), "yearly_rho": home.settings.yearly_rho}


def leave(args: argparse.Namespace, now: int) -> Result:
    """Stop taking part in training: nobody is told, your phone looks absent from now on."""
    from fl_client.consent import TrainingConsent

    return TrainingConsent(_home(args).store).withdraw(args.purpose, now).to_dict()


def ledger(args: argparse.Namespace, now: int) -> Result:
    """What this phone took part in, and its privacy spend: lifetime, this year, the yearly cap, five years at it."""
    home = _home(args)
    return {**home.ledger.summary(now), "entries": [dict(vars(spend)) for spend in home.ledger.spends()]}


def egress(args: argparse.Namespace, now: int) -> Result:
    """Every message that left this phone, by type, and line by line."""
    from fl_client.egress import summary

    lines = _home(args).egress(now).lines()
    return {"types": summary(lines), "entries": [dict(vars(line)) for line in lines]}


def status(args: argparse.Namespace, now: int) -> Result:
    """The release, consents to score and to train, and counts of this home."""
    from fl_client.consent import TrainingConsent
    from fl_client.egress import summary

    home = _home(args)
    phone = _phone(home)
    consents = {}
    for name in sorted(path.stem for path in (home.path / "lenders").glob("*.card")):
        receipts = phone.consents(home.lender(name, now)).receipts()
        consents[name] = _state(receipts, now)
    return {
        "home": str(home.path),
        "release": _release_state(home, now),
        "consents": consents,
        "training": {
            purpose: f"{_state([last], now)}, under {last.policy_pack}"
            for purpose, last in TrainingConsent(home.store).last().items()
        },
        "events": {kind: len(columns["day"]) for kind, columns in phone.store.events().items()},
        "row": len(phone.store.row() or {}),
        "privacy": home.ledger.summary(now),
        "egress": summary(home.egress(now).lines()),
        "attested": False,
    }


def _home(args: argparse.Namespace) -> DeviceHome:
    from fl_client.home import DeviceHome

    return DeviceHome(args.home, lambda: _passphrase(args))


def _phone(home: DeviceHome) -> Phone:
    from fl_client.device import Phone

    return Phone(home.store, home.secret)


def _scorer(home: DeviceHome, now: int) -> Scorer:
    from fl_client.scoring import Scorer

    release = home.trusted.load(now)
    days = home.settings.min_observed_days
    return Scorer(release.onnx, release.manifest, home.schema(), min_observed_days=days)


def _passphrase(args: argparse.Namespace) -> str:
    from fl_client.home import read_bytes

    if args.passphrase_file:
        return read_bytes(args.passphrase_file, "passphrase file").decode("utf-8", "replace").strip()
    if "POCKETSCORE_PASSPHRASE" in os.environ:
        return os.environ["POCKETSCORE_PASSPHRASE"]
    from getpass import getpass

    try:
        return getpass("passphrase of this device's key: ")
    except EOFError as error:
        raise InputError("no passphrase was given; type it, or name its file with --passphrase-file") from error


def _state(receipts: Sequence[ConsentReceipt], now: int) -> str:
    if not receipts:
        return "none"
    last = receipts[-1]
    if last.withdrawn_at is not None:
        return "withdrawn"
    return "in force" if now < last.expires_at else "expired"


def _release_state(home: DeviceHome, now: int) -> str:
    try:
        manifest = home.trusted.load(now).manifest
    except PocketScoreError as error:
        return str(error)
    return f"{manifest['name']} {manifest['version']}"
