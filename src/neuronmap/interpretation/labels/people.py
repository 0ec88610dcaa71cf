"""Who sits in front of this machine, as far as labels are concerned."""

from __future__ import annotations

import getpass
import os

from neuronmap.interpretation.labels.acts import Author

__all__ = ["AUTHOR_VARIABLE", "local_name", "person"]

AUTHOR_VARIABLE = "NEURONMAP_AUTHOR"
"""Environment variable with the name that one's labels are signed with; the name of the account when it is not set."""


def local_name() -> str:
    """The name that labels are signed with when nobody says another."""
    given = os.environ.get(AUTHOR_VARIABLE, "").strip()
    if given:
        return given[:200]
    try:
        return getpass.getuser()[:200] or "somebody"
    except (OSError, KeyError):  # no such user, as in some containers
        return "somebody"


def person(name: str | None = None) -> Author:
    """A person as an author.

    Args:
        name: the one of this machine's user when left out.

    Raises:
        ConfigError: the name is empty, too long, or holds control characters.
    """
    return Author(kind="person", name=local_name() if name is None else name.strip())
