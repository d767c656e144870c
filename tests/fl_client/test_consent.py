"""Consent: given for a purpose and a lender, per source, taken back by an entry; the lender learns the least."""

import pytest

from fl_client.consent import Consents, TrainingConsent
from fl_client.device import Phone
from fl_client.egress import MemoryEgress
from fl_client.store import SqliteStore
from model.canonical import decode
from model.contract.consent import ConsentReceipt
from model.contract.envelope import Signed, keyid, sign, verify
from model.contract.sealed import open_sealed
from model.errors import ConsentError, InputError, SignatureError

NOW = 1_900_000_000
PURPOSE = "personal loan"


@pytest.fixture
def consents(lender) -> Consents:
    return Phone.in_memory().consents(lender.card)


def give(consents: Consents, lender, schema, **options) -> ConsentReceipt:
    options = {"purpose": PURPOSE, "policy_pack": "in-rbi-2025", "now": NOW, **options}
    return consents.give(schema, lender.card, **options)


def test_a_receipt_names_sources_and_categories(consents, lender, table_release):
    receipt = give(consents, lender, table_release.schema, denied=["bill"])
    assert receipt.sources_allowed == ("form", "own_app", "upi")
    assert receipt.sources_denied == ("bill",)
    assert consents.current(PURPOSE, NOW) == receipt


def test_no_consent_and_other_purposes_are_refused(consents, lender, table_release):
    with pytest.raises(ConsentError, match="give it first"):
        consents.current(PURPOSE, NOW)
    give(consents, lender, table_release.schema)
    with pytest.raises(ConsentError):
        consents.current("marketing", NOW)
    assert consents.current(PURPOSE, NOW).withdrawn_at is None


def test_unknown_purposes_and_sources_are_named(consents, lender, table_release):
    with pytest.raises(InputError, match="'marketing' is no purpose here; choose from personal loan"):
        give(consents, lender, table_release.schema, purpose="marketing")
    with pytest.raises(InputError, match="'contacts' is no source here"):
        give(consents, lender, table_release.schema, denied=["contacts"])
    assert consents.receipts() == []


def test_withdrawal_is_an_entry_and_consent_can_be_given_again(consents, lender, table_release):
    first = give(consents, lender, table_release.schema)
    gone = consents.withdraw(PURPOSE, NOW + 5)
    assert (gone.consent_id, gone.withdrawn_at) == (first.consent_id, NOW + 5)
    with pytest.raises(ConsentError, match="withdrawn"):
        consents.current(PURPOSE, NOW + 6)
    with pytest.raises(ConsentError):
        consents.withdraw(PURPOSE, NOW + 7)
    again = give(consents, lender, table_release.schema, now=NOW + 8)
    assert again.consent_id != first.consent_id
    assert consents.current(PURPOSE, NOW + 9) == again
    assert len(consents.receipts()) == 3


def test_consent_ends_by_itself(consents, lender, table_release):
    receipt = give(consents, lender, table_release.schema)
    assert consents.current(PURPOSE, receipt.expires_at - 1)
    with pytest.raises(ConsentError, match="not in force"):
        consents.current(PURPOSE, receipt.expires_at)


def test_the_lender_gets_a_signed_copy_without_sources(consents, lender, table_release):
    receipt = give(consents, lender, table_release.schema, denied=["bill"])
    egress = MemoryEgress(NOW)
    sealed = consents.release(receipt, lender.card, egress)
    plain = open_sealed(sealed, lender.hpke, {"purpose": PURPOSE, "audience": "lender-one"})
    signed = Signed.from_bytes(plain)
    (signer,) = [key for key, _ in signed.signatures]
    public = consents._identity.key.public_bytes
    assert signer == keyid(public)
    copy = ConsentReceipt.from_dict(verify(signed, "consent/1", {signer: public}))
    assert (copy.sources_allowed, copy.sources_denied, copy.data_categories) == ((), (), ("score",))
    assert b"bill" not in plain
    assert (copy.consent_id, copy.given_at) == (receipt.consent_id, receipt.given_at)
    assert egress.summary()["consent/1"]["bytes"] == len(sealed)


def test_two_lenders_share_no_consent_id(lenders, table_release):
    phone = Phone.in_memory()
    found = []
    for name in ("lender-one", "lender-two"):
        one = lenders(name)
        found.append(give(phone.consents(one.card), one, table_release.schema).consent_id)
    assert len(set(found)) == 2


def test_an_entry_by_another_key_is_refused(lender, table_release):
    phone, stranger = Phone.in_memory(), Phone.in_memory()
    receipt = give(stranger.consents(lender.card), lender, table_release.schema)
    consents = phone.consents(lender.card)
    forged = sign("consent/1", receipt.to_dict(), [stranger.consents(lender.card)._identity.key])
    phone.store.append(consents._table, {"signed": forged.to_bytes()})
    with pytest.raises(SignatureError):
        consents.current(PURPOSE, NOW)
    assert decode(forged.payload)["purpose"] == PURPOSE


def test_training_is_agreed_to_by_purpose_for_a_year_and_off_until_then():
    from dataclasses import replace

    from simulation.small import small_dataset, small_plan

    consent = TrainingConsent(SqliteStore(":memory:", b"r" * 32))
    plan = small_plan(small_dataset(60))
    with pytest.raises(ConsentError, match="give it first"):
        consent.require(plan, NOW)
    consent.give(plan.purpose, plan.policy_pack, NOW)
    consent.require(plan, NOW + 1)
    assert (
        len({r.consent_id for r in (consent.give(plan.purpose, plan.policy_pack, NOW + 1), *consent.receipts())}) == 1
    )
    with pytest.raises(ConsentError, match="given under in-rbi-2025 and this plan is under eu-2026"):
        consent.require(replace(plan, policy_pack="eu-2026"), NOW + 1)
    for other, at in ((replace(plan, purpose="advertising"), NOW), (plan, NOW + 366 * 86_400)):
        with pytest.raises(ConsentError):
            consent.require(other, at)
    consent.withdraw(plan.purpose, NOW + 2)
    with pytest.raises(ConsentError, match="withdrawn"):
        consent.require(plan, NOW + 3)
    consent.give(plan.purpose, plan.policy_pack, NOW + 4)
    consent.require(plan, NOW + 5)
