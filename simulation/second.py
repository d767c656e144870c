"""The second server of a workspace: a desk in this process, or a helper's own process behind HTTPS (spec 13.7.4).

Beside the folder, for both outlive the federation and are none of its farms' business: `.helper`, the home of a helper
in this process; or `.line`, how the coordinator reaches another one, with `address.json` and its own signing key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fl_server.helper import Beside, SecondServer
from fl_server.helper_https import HttpsHelper
from fl_server.helper_known import require_known
from fl_server.keys import load_key, replace_file, save_key
from fl_server.review.helper.desk import HelperDesk
from fl_server.review.helper.home import HelperHome, Settings
from model.contract.address import HelperAddress
from model.contract.envelope import SigningKey, keyid
from model.errors import ContractError, InputError, RunError

ADDRESS, CALLER = "address.json", "coordinator.key"
PATIENCE = 60.0  # a helper that is being started again is waited for
MEETING_SECONDS = 10.0


def read_address(path: Path) -> HelperAddress:
    """A helper's address from a file, or from the folder it lies in; InputError where there is none."""
    file = path / ADDRESS if path.is_dir() else path
    try:
        return HelperAddress.from_json(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(
            f"{file} is no helper's address ({why}); give a helper's home, or the address.json that "
            "`pocketscore-review helper serve HOME` writes there"
        ) from error
    except ContractError as error:
        raise InputError(f"{file}: {error}") from error


def meet(address: HelperAddress, signers: Mapping[str, SigningKey]) -> None:
    """Nothing, where this helper answers now and serves plans of these signers, by role.

    RunError or InputError, in one sentence, otherwise.
    """
    public = bytes.fromhex(address.signing_key)
    line = HttpsHelper(address.url, address.certificate, public, signers["coordinator"], seconds=MEETING_SECONDS)
    require_known(line, address, {role: key.public_bytes for role, key in signers.items()})


@dataclass(frozen=True)
class Second:
    """The helper of the workspace in `folder`."""

    folder: Path

    @property
    def home(self) -> Path:
        """The home of a helper in this process."""
        return self.folder.with_name(f"{self.folder.name}.helper")

    @property
    def line(self) -> Path:
        """What the coordinator needs to reach another process."""
        return self.folder.with_name(f"{self.folder.name}.line")

    def dial(self, address: HelperAddress, coordinator: SigningKey) -> None:
        """Ask this helper from now on, as this coordinator; a run that goes on may find it at another url.

        RunError where the run knows another helper.
        """
        known = self.address()
        if known is not None and known.helper_key != address.helper_key:
            raise RunError("the interrupted run was planned with another helper; name that one, or remove the run")
        self.line.mkdir(mode=0o700, exist_ok=True)
        save_key(self.line / CALLER, coordinator)
        replace_file(self.line / ADDRESS, address.to_json().encode())

    def address(self) -> HelperAddress | None:
        """Whom `dial` named; None where the helper is in this process."""
        return read_address(self.line) if (self.line / ADDRESS).exists() else None

    def key(self) -> str:
        """The helper's public key in hex, for the plan; a home in this process is made the first time."""
        address = self.address()
        if address is not None:
            return address.helper_key
        if not self.home.exists():
            HelperHome.init(self.home, settings=Settings(allow_test_noise=True))  # in simulations alone
        return HelperHome.open(self.home).hpke.public_bytes.hex()

    def trusting(self, roles: Mapping[str, bytes]) -> None:
        """Tell a helper in this process whose plans to serve; another one's operator has told it."""
        if self.address() is None:
            HelperHome.open(self.home).trusting(roles)

    @contextmanager
    def open(self) -> Iterator[SecondServer]:
        """The helper, ready to be asked; what it refuses is kept in the workspace's `refusals/`."""
        address, refusals = self.address(), self.folder / "refusals"
        if address is not None:
            public = bytes.fromhex(address.signing_key)
            caller = load_key(self.line / CALLER)
            line = HttpsHelper(address.url, address.certificate, public, caller, patience=PATIENCE)
            yield SecondServer(line, {keyid(public): public}, refusals)
            return
        home = HelperHome.open(self.home)
        with HelperDesk(home) as desk:
            yield SecondServer(Beside(desk.share), {home.signing.keyid: home.signing.public_bytes}, refusals)
