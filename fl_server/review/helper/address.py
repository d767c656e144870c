"""The address file in a helper's home: all that a coordinator needs to reach it and know it again (spec 13.7.3)."""

from __future__ import annotations

from pathlib import Path

from fl_server.review.durable import replace_file
from fl_server.review.helper.home import HelperHome
from model.contract.address import ADDRESS_SCHEMA, HelperAddress
from model.errors import ContractError, InputError

NAME = "address.json"
EVERYWHERE = ("0.0.0.0", "::")


def url_of(host: str, port: int) -> str:
    """What a coordinator dials; InputError for an address that listens everywhere and is dialled nowhere."""
    if host in EVERYWHERE:
        raise InputError(f"{host} listens on every address and names none; add --url https://NAME:PORT")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def write_address(home: HelperHome, url: str) -> Path:
    """Where `home` answers from now on, as a file whose every byte is public; InputError for a url that is none."""
    told = home.about()
    try:
        address = HelperAddress(
            schema=ADDRESS_SCHEMA,
            url=url,
            helper_key=told["helper_key"],
            signing_key=told["signing_key"],
            certificate=home.certificate.read_text("ascii"),
            certificate_sha256=told["certificate_sha256"],
        )
        replace_file(home.path / NAME, address.to_json().encode(), 0o644)
    except ContractError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"{home.path / NAME} cannot be written ({error.strerror}); free the place") from error
    return home.path / NAME
