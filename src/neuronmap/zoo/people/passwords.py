"""Passwords: what is a good one, and argon2id (RFC 9106) of it.

Hashing takes a tenth of a second and 64 MiB by intent, so at most two are made at a time, never within a transaction.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from neuronmap.errors import InputError, MissingDependencyError

__all__ = ["LEAST", "MOST", "check_password", "hash_password", "is_password"]

LEAST = 12
MOST = 256
"""Characters."""
_AT_ONCE = threading.BoundedSemaphore(2)


def check_password(name: str, password: str) -> str:
    """A password that somebody chose.

    Raises:
        InputError: it is too short, too long, the name, or one character again and again.
    """
    if not LEAST <= len(password) <= MOST:
        raise InputError(
            f"The password has {len(password)} characters; {LEAST} to {MOST} are needed.",
            hint="A sentence of four or five words that do not belong together is good.",
        )
    if "\0" in password or any(0xD800 <= ord(one) < 0xE000 for one in password):
        raise InputError("The password holds characters that cannot be typed.")
    folded, own = password.casefold(), name.casefold()
    if own and (folded == own or not folded.replace(own, "").strip("0123456789 -_.!")):
        raise InputError("The password is the name, or little more than it.", hint="Choose another one.")
    if len(set(folded)) < 4:
        raise InputError("The password is a few characters again and again.", hint="Choose another one.")
    return password


def hash_password(password: str) -> str:
    """Its argon2id hash, with salt and parameters.

    Raises:
        MissingDependencyError: argon2-cffi is not installed.
    """
    with _AT_ONCE:
        return str(_hasher().hash(password))


def is_password(password: str, stored: str | None) -> tuple[bool, str | None]:
    """Whether it is the one of a stored hash; takes as long where nothing is stored.

    Returns:
        Whether it is, and a new hash to store in its place if the parameters have changed since.
    """
    from argon2.exceptions import InvalidHashError, VerificationError

    hasher = _hasher()
    with _AT_ONCE:
        try:
            hasher.verify(stored if stored is not None else _nobodys(), password)
        except (VerificationError, InvalidHashError):
            return False, None
        if stored is None:
            return False, None
        return True, str(hasher.hash(password)) if hasher.check_needs_rehash(stored) else None


@cache
def _hasher() -> Any:
    try:
        from argon2 import PasswordHasher
    except ImportError as error:
        raise MissingDependencyError(
            "Accounts with passwords need argon2-cffi.", hint='pip install "neuronmap[zoo-server]"'
        ) from error
    return PasswordHasher()


@cache
def _nobodys() -> str:
    return str(_hasher().hash("nobody has this password"))
