"""PROTOTYPE, for its cost only: a phone proves to two servers that its update's L2 norm keeps the clip (ADR 99).

After PINE (Rothblum, Omri, Chen, Talwar: USENIX Security 2024; draft-chen-cfrg-vdaf-pine-02) over Prio3's fully linear
proof (BBCGGI19; draft-irtf-cfrg-vdaf): update and witness bits are shared additively, and the circuits are quadratic.
Written to count bytes and milliseconds. It is no VDAF implementation: message forms, domain separation
and encodings are not the draft's, one proof a circuit, and nobody has reviewed it. Example:
python benchmarks/pine.py --dims 1000,10000
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import goldilocks as gf
from goldilocks import PRIME, U64

from model.errors import UpdateError
from model.privacy.noise import ByteSource, OsSource

CHECKS, ALPHA = 100, 8.7  # wraparound tests, and how many norms a test's dot product may have (PINE, section 4)
ONE = np.uint64(1)
HALF = np.uint64(pow(2, -1, PRIME))  # what a constant counts on each of two shares


@dataclass(frozen=True)
class Shape:
    """Sizes for a `dim`-long update of norm ≤ `bound` grid units."""

    dim: int
    bound: int

    @property
    def norm_bits(self) -> int:
        """Bits of a squared norm."""
        return (self.bound**2).bit_length()

    @property
    def wide(self) -> int:
        """A wraparound test's dot product lies in -wide + 1 … wide; a power of two."""
        return 1 << math.ceil(math.log2(math.ceil(ALPHA * self.bound) + 1))

    @property
    def test_bits(self) -> int:
        """Bits of one dot product, shifted to 0 and more."""
        return (2 * self.wide - 1).bit_length()

    @property
    def bits(self) -> int:
        """Witness bits: squared norm, what it lacks to the bound, and each test's result and success."""
        return 2 * self.norm_bits + CHECKS * (self.test_bits + 1)

    @property
    def shared(self) -> int:
        """Field elements that are shared besides the proofs."""
        return self.dim + self.bits

    @property
    def chunks(self) -> tuple[int, int]:
        """Gadget inputs a call for (squares, products): about √ of what there is, where a proof is shortest."""
        return math.isqrt(self.dim) or 1, math.isqrt(self.bits + CHECKS) or 1


@dataclass(frozen=True)
class Sent:
    """What a phone sends: shares and proofs of the one server, a seed and blind for the other, a digest of each share
    at both stages."""

    share: U64
    proofs: tuple[U64, U64]
    blind: bytes
    seed: bytes
    parts: tuple[bytes, bytes, bytes, bytes]


@dataclass(frozen=True)
class Answer:
    """What one server tells the other: for each circuit output, wires at the random point, gadget there; its parts."""

    circuits: tuple[tuple[U64, U64, U64], tuple[U64, U64, U64]]
    parts: tuple[bytes, bytes]


def prove(update: np.ndarray, shape: Shape, source: ByteSource) -> Sent:
    """Shares and proofs of an int64 update (d,). UpdateError for one longer than the bound; a wraparound test that
    fails, less than once in 10^9 updates, is tried again with other blinds."""
    square = int((update.astype(object) ** 2).sum()) if np.abs(update).max(initial=0) >= 2**26 else int(update @ update)
    if len(update) != shape.dim or square > shape.bound**2:
        raise UpdateError(f"an update of norm {math.isqrt(square)} exceeds the {shape.bound} to be proved; clip it")
    while True:
        sent, passed = claim(gf.element(update), square, shape, source)
        if passed:
            return sent


def claim(x: U64, square: int, shape: Shape, source: ByteSource) -> tuple[Sent, bool]:
    """The prover without its conscience: `square` is what it says the squared norm is. False where it cannot honestly
    say that all tests passed; what it sends then says so all the same."""
    seed, blind, mine = source.take(32), source.take(32), source.take(32)
    other = gf.expand(_key(seed, b"share"), shape.shared)
    first = np.concatenate([x, _bits(square, shape.norm_bits), _bits(shape.bound**2 - square, shape.norm_bits)])
    early = gf.sub(first, other[: len(first)])
    parts = [_part(blind, early), _part(_key(seed, b"blind"), other[: len(first)])]
    dots = signs(_key(parts[0], parts[1]), shape)(x)
    shifted = gf.add(dots, np.uint64(shape.wide - 1))
    tests = np.ones((CHECKS, shape.test_bits + 1), dtype=np.uint64)
    tests[:, :-1] = (shifted[:, None] >> np.arange(shape.test_bits, dtype=np.uint64)) & ONE
    whole = np.concatenate([first, tests.ravel()])
    share = gf.sub(whole, other)
    parts += [_part(blind, share), _part(_key(seed, b"blind"), other)]
    wires = _wires(whole, dots, shape, gf.expand(_key(parts[2], parts[3]), 3), ONE)
    proofs = [_proof(wire, gf.expand(_key(mine, bytes([i])), wire.shape[0]), i) for i, wire in enumerate(wires)]
    hidden = [gf.sub(proof, gf.expand(_key(seed, b"proof%d" % i), len(proof))) for i, proof in enumerate(proofs)]
    sent = Sent(share, (hidden[0], hidden[1]), blind, seed, (parts[0], parts[1], parts[2], parts[3]))
    return sent, bool((shifted < np.uint64(2 * shape.wide)).all())


def query(sent: Sent, shape: Shape, helper: bool, key: bytes) -> Answer:
    """One server's work on one phone: `key` is the two servers' own and unknown to phones."""
    share, proofs, blind = _mine(sent, shape, helper)
    first = shape.dim + 2 * shape.norm_bits
    own = _part(blind, share[:first]), _part(blind, share)
    early = (sent.parts[0], own[0]) if helper else (own[0], sent.parts[1])
    late = (sent.parts[2], own[1]) if helper else (own[1], sent.parts[3])
    dots = signs(_key(*early), shape)(share[: shape.dim])
    joint = gf.expand(_key(*late), 3)
    points = gf.expand(_key(key, late[0]), 2)
    wires = _wires(share, dots, shape, joint, HALF)
    found = [_look(wire, proof, int(point)) for wire, proof, point in zip(wires, proofs, points, strict=True)]
    outputs = _outputs(share, [total for total, _, _ in found], shape, int(joint[2]))
    circuits = [(out, at, gadget) for out, (_, at, gadget) in zip(outputs, found, strict=True)]
    return Answer((circuits[0], circuits[1]), own)


def decide(leader: Answer, helper: Answer, sent: Sent) -> bool:
    """Whether both servers may add their shares: outputs 0, gadgets true at the random points, and the same parts."""
    if (leader.parts[0], helper.parts[0], leader.parts[1], helper.parts[1]) != sent.parts:
        return False
    for kind, (mine, yours) in enumerate(zip(leader.circuits, helper.circuits, strict=True)):
        output, wires, gadget = (gf.add(a, b) for a, b in zip(mine, yours, strict=True))
        if int(output) or int(_gadget(wires[:, None], kind)[0]) != int(gadget):
            return False
    return True


def signs(seed: bytes, shape: Shape):  # type: ignore[no-untyped-def]
    """CHECKS vectors of -1, 0, 1 with chances 1/4, 1/2, 1/4, as a function from elements (d,) to dot products."""
    raw = np.unpackbits(np.frombuffer(gf.stream(seed, CHECKS * shape.dim // 4 + 1), dtype=np.uint8))
    pair = raw[: 2 * CHECKS * shape.dim].reshape(2, CHECKS, shape.dim)
    matrix = pair[0].astype(np.float64) - pair[1]

    def dots(x: U64) -> U64:
        # Sums of d halves of 32 bits are exact in float64 up to d = 2^21.
        low, high = ((matrix @ half.astype(np.float64)).astype(np.int64) for half in (x & gf._LOW, x >> gf._HALF))
        return gf.add(gf.element(low), gf.mul(gf.element(high), np.uint64(2**32)))

    return dots


def upload(shape: Shape) -> dict[str, int]:
    """Bytes: phone to coordinator, phone to helper before sealing, and each server to the other a phone."""
    squares, products = shape.chunks
    proofs = sum(_proof_length(*sizes) for sizes in ((squares, _calls(shape)[0]), (2 * products, _calls(shape)[1])))
    return {
        "to_coordinator": 8 * (shape.shared + proofs) + 32 + 4 * 32,
        "to_helper": 32 + 4 * 32,
        "between_servers": 8 * (squares + 2 * products + 4) + 2 * 32,
    }


def _key(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


def _part(blind: bytes, share: U64) -> bytes:
    return _key(blind, share.astype("<u8").tobytes())


def _bits(value: int, count: int) -> U64:
    return np.array([value >> i & 1 for i in range(count)], dtype=np.uint64)


def _calls(shape: Shape) -> tuple[int, int]:
    squares, products = shape.chunks
    return -(-shape.dim // squares), -(-(shape.bits + CHECKS) // products)


def _proof_length(arity: int, calls: int) -> int:
    return arity + 2 * _size(calls) - 1


def _size(calls: int) -> int:
    return 1 << calls.bit_length()  # of the seeds' place and the calls' together


def _wires(whole: U64, dots: U64, shape: Shape, joint: U64, one: np.uint64) -> tuple[U64, U64]:
    """Inputs of the two gadgets, (arity, calls): the update's numbers to be squared; (r^i · bit, bit - 1) for every
    witness bit and (r^i · (dot - said dot), success) for every test. `one` is 1, or its share."""
    squares, products = shape.chunks
    x = _padded(whole[: shape.dim], squares)
    bits = whole[shape.dim :]
    tests = bits[2 * shape.norm_bits :].reshape(CHECKS, shape.test_bits + 1)
    said = gf.sub(gf.total(gf.mul(tests[:, :-1], gf.power(2, shape.test_bits))), gf.mul(one, np.uint64(shape.wide - 1)))
    left = [gf.mul(gf.power(int(joint[0]), len(bits)), bits)]
    left += [gf.mul(gf.mul(gf.power(int(joint[1]), CHECKS), joint[2]), gf.sub(dots, said))]
    right = [gf.sub(bits, one), tests[:, -1]]
    return x, np.concatenate([_padded(np.concatenate(side), products) for side in (left, right)])


def _padded(values: U64, chunk: int) -> U64:
    calls = -(-len(values) // chunk)
    found = np.zeros(calls * chunk, dtype=np.uint64)
    found[: len(values)] = values
    return found.reshape(calls, chunk).T


def _gadget(wires: U64, kind: int) -> U64:
    """Sum over wires of squares (kind 0), or of products of the first half with the second (kind 1)."""
    half = len(wires) // 2
    return gf.total(gf.mul(wires, wires) if kind == 0 else gf.mul(wires[:half], wires[half:]), axis=0)


def _filled(wires: U64, seeds: U64) -> U64:
    """Values of the wire polynomials at the roots of unity: a random one first, then the calls, then zeros."""
    found = np.zeros((len(wires), _size(wires.shape[1])), dtype=np.uint64)
    found[:, 0], found[:, 1 : 1 + wires.shape[1]] = seeds, wires
    return found


def _proof(wires: U64, seeds: U64, kind: int) -> U64:
    """Seeds, and the 2P - 1 coefficients of the gadget polynomial: interpolate at P points, evaluate at 2P."""
    coefficients = gf.intt(_filled(wires, seeds))
    doubled = gf.ntt(np.concatenate([coefficients, np.zeros_like(coefficients)], axis=1))
    return np.concatenate([seeds, gf.intt(_gadget(doubled, kind))[:-1]])


def _look(wires: U64, proof: U64, point: int) -> tuple[U64, U64, U64]:
    """(sum of the gadget over its calls, wires at the point (arity,), gadget polynomial there)."""
    seeds, gadget = proof[: len(wires)], proof[len(wires) :]
    size, calls = _size(wires.shape[1]), wires.shape[1]
    folded = gf.add(gadget[:size], np.append(gadget[size:], np.uint64(0)))  # modulo X^P - 1: same at the roots
    at_roots = gf.ntt(folded)
    wires_there = gf.total(gf.mul(_filled(wires, seeds), _lagrange(size, point)))
    there = gf.total(gf.mul(gadget, gf.power(point, len(gadget))))
    return gf.total(at_roots[1 : 1 + calls]), wires_there, there


def _lagrange(size: int, point: int) -> U64:
    """ℓ_k(t) = (t^P - 1)/P · ω^k/(t - ω^k) for the P-th roots of unity."""
    roots = [int(r) for r in gf.power(gf.root(size), size)]
    lead = (pow(point, size, PRIME) - 1) * pow(size, -1, PRIME)
    return np.array([lead * r * pow(point - r, -1, PRIME) % PRIME for r in roots], dtype=np.uint64)


def _outputs(share: U64, gadgets: list[U64], shape: Shape, joint: int) -> list[U64]:
    """Zero, summed over servers, for a true claim: the squares are the number said; the rest all at once."""
    bits = share[shape.dim :]
    weights = gf.power(2, shape.norm_bits)
    said, lacks = (gf.total(gf.mul(weights, bits[i * shape.norm_bits :][: shape.norm_bits])) for i in (0, 1))
    most = np.uint64(int(HALF) * shape.bound**2 % PRIME)
    passed = gf.total(bits[2 * shape.norm_bits :].reshape(CHECKS, -1)[:, -1])
    in_range = gf.mul(gf.sub(gf.add(said, lacks), most), np.uint64(joint**2 % PRIME))
    counted = gf.mul(gf.sub(passed, np.uint64(int(HALF) * CHECKS % PRIME)), np.uint64(joint**3 % PRIME))
    return [gf.sub(said, gadgets[0]), gf.add(gf.add(gadgets[1], in_range), counted)]


def _mine(sent: Sent, shape: Shape, helper: bool) -> tuple[U64, tuple[U64, U64], bytes]:
    if not helper:
        return sent.share, sent.proofs, sent.blind
    lengths = [len(proof) for proof in sent.proofs]
    proofs = [gf.expand(_key(sent.seed, b"proof%d" % i), length) for i, length in enumerate(lengths)]
    return gf.expand(_key(sent.seed, b"share"), shape.shared), (proofs[0], proofs[1]), _key(sent.seed, b"blind")


def measure(dim: int, repeats: int, source: ByteSource) -> dict[str, float]:
    """Median processor milliseconds of prover and each server, and bytes, for an update just within a norm of 2^20."""
    shape = Shape(dim, 1 << 20)
    random = np.random.Generator(np.random.Philox(dim))
    raw = random.normal(size=dim)
    update = np.trunc(raw / np.linalg.norm(raw) * shape.bound).astype(np.int64)
    spent: dict[str, list[float]] = {"prove": [], "coordinator": [], "helper": [], "decide": []}
    for _ in range(repeats):
        marks = [time.process_time()]
        sent = prove(update, shape, source)
        marks.append(time.process_time())
        leader = query(sent, shape, False, bytes(32))
        marks.append(time.process_time())
        helper = query(sent, shape, True, bytes(32))
        marks.append(time.process_time())
        if not decide(leader, helper, sent):
            raise ArithmeticError("a true claim was refused")
        marks.append(time.process_time())
        for name, began, ended in zip(spent, marks, marks[1:], strict=False):
            spent[name].append(1000 * (ended - began))
    return {name: float(np.median(values)) for name, values in spent.items()} | upload(shape)


def main() -> None:
    """Print one line a dimension."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", default="1000,10000")
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    print("PROTOTYPE: NumPy, one core; processor milliseconds (median) and bytes a phone")
    for dim in map(int, given.dims.split(",")):
        found = measure(dim, given.repeats, OsSource())
        print(f"d = {dim}: " + ", ".join(f"{name} {value:,.1f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
