"""The only two ways in which a foreign string becomes part of a path or a key: :class:`Digest` and :class:`SafePath`.

Every place of the zoo that names a file takes one of them, so that a rule is not forgotten in the next module.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path
from typing import Any, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from neuronmap.errors import InputError

__all__ = ["Digest", "SafePath"]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@=,-]*")
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"com{number}" for number in range(10)), *(f"lpt{number}" for number in range(10))}
)
_MOST_BYTES = 512
_MOST_PART_BYTES = 200
_MOST_PARTS = 16


class _Text(str):
    """A string that its constructor has checked; pydantic models take and check it as such."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler

        def checked(value: str) -> _Text:
            try:
                return cls(value)
            except InputError as error:
                raise ValueError(error.message) from None

        return core_schema.no_info_after_validator_function(checked, core_schema.str_schema(max_length=4096))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), **cls._json_schema()}

    @classmethod
    def _json_schema(cls) -> dict[str, Any]:
        return {}


class Digest(_Text):
    """``sha256:`` and 64 lower-case hex digits.

    Raises:
        InputError: anything else.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        if not _DIGEST.fullmatch(value):
            raise InputError(f"{value[:100]!r} is not a digest: sha256: and 64 lower-case hex digits are.")
        return super().__new__(cls, value)

    @classmethod
    def of(cls, data: bytes | memoryview) -> Self:
        """Of some bytes."""
        return cls(f"sha256:{hashlib.sha256(data).hexdigest()}")

    @property
    def hex(self) -> str:
        """The 64 digits."""
        return self[len("sha256:") :]

    @property
    def key(self) -> str:
        """Where its blob lies in every store: ``sha256/aa/<hex>``."""
        return f"sha256/{self.hex[:2]}/{self.hex}"

    @classmethod
    def _json_schema(cls) -> dict[str, Any]:
        return {"pattern": f"^{_DIGEST.pattern}$", "maxLength": 71}


class SafePath(_Text):
    """A relative path that means the same file, below the folder it is put in, on every file system.

    Parts are separated by ``/``; each begins with an ASCII letter, digit or underscore and holds letters, digits and ``. _ + - @ = ,``.
    No hidden files, no device names of Windows, no part that ends in a dot.

    Raises:
        InputError: says which part is not allowed.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        shown = repr(value[:100])
        if len(value.encode("utf-8", "surrogatepass")) > _MOST_BYTES:
            raise InputError(f"The path {shown} is longer than {_MOST_BYTES} bytes.")
        parts = value.split("/")
        if len(parts) > _MOST_PARTS:
            raise InputError(f"The path {shown} has {len(parts)} parts; at most {_MOST_PARTS} are allowed.")
        for part in parts:
            name = part.partition(".")[0].lower()
            if not _PART.fullmatch(part) or part.endswith(".") or name in _DEVICES or len(part) > _MOST_PART_BYTES:
                raise InputError(
                    f"The path {shown} is not allowed: the part {part[:60]!r} must begin with a letter, digit or underscore and hold "
                    f"letters, digits and . _ + - @ = , ({_MOST_PART_BYTES} at most; no device name, no dot at the end)."
                )
        return super().__new__(cls, value)

    @property
    def folded(self) -> str:
        """Equal for two paths that are one file where the case of letters does not count."""
        return unicodedata.normalize("NFC", self).casefold()

    def under(self, folder: Path) -> Path:
        """The file below a folder."""
        return folder.joinpath(*self.split("/"))

    @classmethod
    def _json_schema(cls) -> dict[str, Any]:
        return {"maxLength": _MOST_BYTES, "pattern": f"^{_PART.pattern}(/{_PART.pattern})*$"}
