"""Verify Ed25519 signatures (RFC 8032, section 5.1) in pure Python.

Verification needs no secret, so nothing here has to run in constant time. Multiples of the base point and of
a key come from tables, a table for each key: about a millisecond per signature instead of ten.

It accepts what libsodium's `crypto_sign_verify_detached` accepts, which Nix calls: the scalar must be
reduced, the key a canonical point that is not of small order, and R is compared as bytes.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import List, Optional, Tuple

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_SQRT_MINUS_ONE = pow(2, (_P - 1) // 4, _P)

# Extended homogeneous coordinates: x = X/Z, y = Y/Z, T = XY/Z.
_Point = Tuple[int, int, int, int]
_Table = List[List[_Point]]
_NEUTRAL: _Point = (0, 1, 1, 0)
_WINDOW = 4


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether a signature of 64 bytes over a message is by the key of 32 bytes.

    Anything malformed is no signature; nothing is raised.
    """
    if len(public_key) != 32 or len(signature) != 64:
        return False
    scalar = int.from_bytes(signature[32:], "little")
    if scalar >= _ORDER:
        return False
    key = _key_table(public_key)
    if key is None:
        return False
    digest = hashlib.sha512(signature[:32] + public_key + message).digest()
    challenge = int.from_bytes(digest, "little") % _ORDER
    # The table holds multiples of -A: R = sB - hA.
    point = _add(_multiply(_base_table(), scalar), _multiply(key, challenge))
    return _encode(point) == signature[:32]


def _add(one: _Point, two: _Point) -> _Point:
    x1, y1, z1, t1 = one
    x2, y2, z2, t2 = two
    a = (y1 - x1) * (y2 - x2) % _P
    b = (y1 + x1) * (y2 + x2) % _P
    c = 2 * t1 * t2 * _D % _P
    d = 2 * z1 * z2 % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _multiply(table: _Table, scalar: int) -> _Point:
    """Give the multiple of the point that the table was made for."""
    point = _NEUTRAL
    for row in table:
        digit = scalar & ((1 << _WINDOW) - 1)
        if digit:
            point = _add(point, row[digit])
        scalar >>= _WINDOW
    return point


def _tabulate(point: _Point) -> _Table:
    """Give digit * 16^row * point for every row and digit of a scalar."""
    table: _Table = []
    for _ in range(256 // _WINDOW):
        row = [_NEUTRAL]
        for _ in range((1 << _WINDOW) - 1):
            row.append(_add(row[-1], point))
        table.append(row)
        point = _add(row[-1], point)
    return table


def _encode(point: _Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, _P - 2, _P)
    return ((y * inverse % _P) | (x * inverse % _P & 1) << 255).to_bytes(32, "little")


def _decode(encoded: bytes) -> Optional[_Point]:
    """Read a point; None if it is not canonical or not on the curve."""
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _SQRT_MINUS_ONE % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


@lru_cache(maxsize=64)
def _key_table(public_key: bytes) -> Optional[_Table]:
    point = _decode(public_key)
    if point is None:
        return None
    eightfold = point
    for _ in range(3):
        eightfold = _add(eightfold, eightfold)
    if eightfold[0] == 0 and (eightfold[1] - eightfold[2]) % _P == 0:
        return None  # of small order: such a key would "sign" every message
    x, y, z, t = point
    return _tabulate((-x % _P, y, z, -t % _P))


@lru_cache(maxsize=1)
def _base_table() -> _Table:
    y = 4 * pow(5, _P - 2, _P) % _P
    point = _decode(y.to_bytes(32, "little"))
    if point is None:
        raise AssertionError("the base point is on the curve")
    return _tabulate(point)
