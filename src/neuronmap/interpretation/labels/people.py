"""Who sits in front of this machine, as far as labels are concerned."""

from __future__ import annotations

import getpass
import os

from neuronmap.errors import ConfigError
from neuronmap.interpretation.labels.acts import Author

__all__ = ["AUTHOR_VARIABLE", "PEOPLE", "local_name", "person"]

PEOPLE = Author(kind="person", name="reviewers")
"""All who answered blind tasks together: the author of their scores, and nobody else's name."""

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
        ConfigError: the name is empty, too long, taken by all reviewers together, or holds control characters.
    """
    author = Author(kind="person", name=local_name() if name is None else name.strip())
    if author.name.casefold() == PEOPLE.name:
        raise ConfigError(
            f"{author.name!r} is the author of what all reviewers found together, and nobody else's name.",
            hint="Choose another name.",
        )
    return author
