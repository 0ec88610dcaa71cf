"""Prompts read from their files. The fixed part is the system message, whole and first, so that endpoints can keep it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template

from neuronmap.errors import InputError
from neuronmap.hashing import digest_bytes

__all__ = ["PromptTemplate", "parse_template", "read_template"]

_PART = re.compile(r"^--- (system|user)\n", re.MULTILINE)


@dataclass(frozen=True)
class PromptTemplate:
    """One version of a prompt.

    Attributes:
        name: such as ``quantiles``.
        version: counted from 1.
        system: the fixed part.
        user: what changes, with ``$names``.
        digest: of the file.
    """

    name: str
    version: int
    system: str
    user: str
    digest: str

    @property
    def method(self) -> str:
        """``quantiles@1``."""
        return f"{self.name}@{self.version}"

    def messages(self, **values: str) -> tuple[tuple[str, str], ...]:
        """The messages with values in their places."""
        return (("system", self.system), ("user", Template(self.user).substitute(values)))


def parse_template(name: str, version: int, text: str) -> PromptTemplate:
    """A prompt from the text of its file.

    Raises:
        InputError: it has no system part, or no user part after it.
    """
    parts = _PART.split(text)
    if parts[:2] != ["", "system"] or parts[3:4] != ["user"] or len(parts) != 5:
        raise InputError(f"Prompt {name}-{version} is not a part '--- system' and then a part '--- user'.")
    return PromptTemplate(name, version, parts[2].strip(), parts[4].strip(), digest_bytes(text.encode()))


@cache
def read_template(package: str, name: str, version: int) -> PromptTemplate:
    """A prompt of ours, by the package its files are in.

    Raises:
        InputError: there is no such version.
    """
    file = files(package) / f"{name}-{version}.txt"
    if not file.is_file():
        raise InputError(f"There is no prompt {name}-{version} in {package}.")
    return parse_template(name, version, file.read_text(encoding="utf-8"))
