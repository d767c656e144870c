"""The coordinator's seam to the witness of mode pairwise (spec 13.15)."""

from __future__ import annotations

from dataclasses import dataclass

from model.secagg.witness import Witness


@dataclass(frozen=True)
class Seat:
    """The witness as the coordinator sees it: whom to ask for signatures, and its public key (32 bytes)."""

    witness: Witness
    public: bytes
