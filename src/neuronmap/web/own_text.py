"""A text of one's own in the address of a page: written out where it fits, by its digest where it does not.

    ?text=The+river+froze.     up to 2,000 characters, as they stand in an address: whoever has the address has the text
    ?kept=9f86d081884c7d65...  longer: the text lies on this machine, <home>/typed/<digest>.txt, the newest used 500 of them

Addresses of a length that every browser, proxy and mail programme takes, and pages of a size that holds a link for each token.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import quote_plus

from pydantic import Field

from neuronmap import paths
from neuronmap.web.errors import WebError

__all__ = ["ADDRESS_CHARACTERS", "MOST_FOLLOWING", "MOST_KEPT", "Kept", "OwnText", "addressed", "own_text"]

ADDRESS_CHARACTERS = 2_000
"""Of a text in an address, after encoding; one of é takes six."""
MOST_FOLLOWING = 4_000
"""Of a text that a script writes out in the address of a feature."""
MOST_KEPT = 500
"""Texts that are kept, at most 80 kB each; the ones used longest ago go first."""

_DIGEST = re.compile(r"[0-9a-f]{40}")
_LOCK = threading.Lock()

Kept = Annotated[
    str,
    Field(pattern=r"^([0-9a-f]{40})?$", description="Digest of a text that was too long for an address, and is kept."),
]


@dataclass(frozen=True)
class OwnText:
    """A text and how an address names it.

    Attributes:
        text: all of it.
        kept: its digest, where it is kept because it is too long for an address.
    """

    text: str = ""
    kept: str = ""

    @property
    def query(self) -> dict[str, str]:
        """What stands in an address."""
        return {"kept": self.kept} if self.kept else {"text": self.text}


def addressed(text: str) -> OwnText:
    """A text as addresses name it; a long one is kept for them.

    Args:
        text: the text; what browsers send as CR LF is one newline.
    """
    text = text.replace("\r\n", "\n")
    if len(text) <= ADDRESS_CHARACTERS and len(quote_plus(text)) <= ADDRESS_CHARACTERS:
        return OwnText(text)
    data = text.encode(errors="replace")
    digest = _digest(data)
    with _LOCK:
        if not _path(digest).is_file():
            paths.new_folder(_folder())
            paths.write_bytes(_path(digest), data)
            _drop_oldest()
        else:
            os.utime(_path(digest))
    return OwnText(text, digest)


def own_text(text: str, kept: str) -> OwnText:
    """The text that an address means.

    Args:
        text: as it stands there.
        kept: digest of one that is kept; not looked at where there is a text.

    Raises:
        WebError: 404, a text of that digest is not kept here, or not any more.
    """
    if text or not kept:
        return addressed(text)
    try:
        data = _path(kept).read_bytes()
    except OSError:
        data = b""
    if _digest(data) != kept:
        raise WebError(
            404,
            "text_not_kept",
            "The text of this address is not kept here.",
            hint=f"A text of more than {ADDRESS_CHARACTERS:,} characters stays on the machine where it was typed, "
            f"among the {MOST_KEPT} used last. Paste it again on the text page.",
        )
    with suppress(OSError):  # a home that may only be read
        os.utime(_path(kept))
    return OwnText(data.decode(), kept)


def _folder() -> Path:
    return paths.home() / "typed"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:40]


def _path(digest: str) -> Path:
    """The file of a digest; nothing else ever becomes a path."""
    if not _DIGEST.fullmatch(digest):
        raise WebError(422, "invalid_request", "A digest of a text has 40 hexadecimal digits.")
    return _folder() / f"{digest}.txt"


def _drop_oldest() -> None:
    used = []
    for path in _folder().glob("*.txt"):
        with suppress(OSError):  # another server has dropped it
            used.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(used)[:-MOST_KEPT]:
        with suppress(OSError):
            path.unlink()
