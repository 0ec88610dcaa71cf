"""MkDocs hook: docstrings on the reference pages. ``:class:`~package.Name``` reads as `Name`, and ``>>>`` lines are code."""

from __future__ import annotations

import itertools
import re
from typing import Any

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

PROMPT = re.compile(r"^(?:>>>|\.\.\.)(?: |$)")
SKIP = re.compile(r"\s*# doctest: \+SKIP$")
ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`(~?)([\w.]+)`")


def on_config(config: Any) -> Any:
    """Called by MkDocs once the configuration is read."""
    config.markdown_extensions.append(RolesExtension())
    return config


class RolesExtension(Extension):
    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802  (the library's name)
        md.preprocessors.register(Roles(md), "docstring-roles", 100)


class Roles(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        found: list[str] = []
        for is_code, group in itertools.groupby(lines, lambda line: PROMPT.match(line) is not None):
            if is_code:
                found += ["```python", *(SKIP.sub("", PROMPT.sub("", line)) for line in group), "```"]
            else:
                found += [ROLE.sub(shown, line) for line in group]
        return found


def shown(match: re.Match[str]) -> str:
    """The last part of a name marked with ``~``, the whole name otherwise."""
    short, name = match.groups()
    return f"`{name.rpartition('.')[2] if short else name}`"
