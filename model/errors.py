"""The one error tree. Every message is one sentence that names the thing and the next step.

PocketScoreError
├── InputError        a person's file, option or folder cannot be used
├── SchemaError       features that do not fit the schema
├── ContractError     bytes that do not follow the contract
│   └── SignatureError   a signature is missing, wrong, or below its threshold
├── PolicyError       a plan breaks a rule of its policy pack
├── BudgetError       a release would exceed the privacy budget
├── UpdateError       an update that may not enter a sum
├── RoundError        a round that cannot be opened or closed
├── TrustError        a release the device must not install or run
│   └── ModelError       an ONNX file outside what a device runs
├── ConsentError      no consent, or consent withdrawn
├── EgressError       bytes that no declared schema allows out
├── NoScore           the typed answer "no score", with its reason code
├── IntakeError       an envelope the lender must not take
│   ├── ReplayError      seen before
│   └── AudienceError    sealed or addressed to someone else
└── RunError          a run that cannot start, resume or finish
"""


class PocketScoreError(Exception):
    """Base of all errors meant for a person: `str(error)` is one sentence, with the next step."""


class InputError(PocketScoreError):
    """A person's file, option or folder cannot be used."""


class SchemaError(PocketScoreError):
    """Features that do not fit the schema."""


class ContractError(PocketScoreError):
    """Bytes that do not follow the contract."""


class SignatureError(ContractError):
    """A signature is missing, wrong, or below its threshold."""


class PolicyError(PocketScoreError):
    """A plan breaks a rule of its policy pack."""


class BudgetError(PocketScoreError):
    """A release would exceed the privacy budget."""


class UpdateError(PocketScoreError):
    """An update that may not enter a sum."""


class RoundError(PocketScoreError):
    """A round that cannot be opened or closed."""


class TrustError(PocketScoreError):
    """A release the device must not install or run."""


class ModelError(TrustError):
    """An ONNX file outside what a device runs."""


class ConsentError(PocketScoreError):
    """No consent, or consent withdrawn."""


class EgressError(PocketScoreError):
    """Bytes that no declared schema allows out."""


class NoScore(PocketScoreError):
    """The typed answer "no score".

    `code` is a stable machine-readable reason such as `thin_file` or `required_missing`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class IntakeError(PocketScoreError):
    """An envelope the lender must not take."""


class ReplayError(IntakeError):
    """An envelope seen before."""


class AudienceError(IntakeError):
    """An envelope sealed or addressed to someone else."""


class RunError(PocketScoreError):
    """A run that cannot start, resume or finish."""
