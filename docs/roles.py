"""MkDocs hook: cross-references in docstrings (``:class:`~package.Name```) read as `Name` on the reference pages."""

from __future__ import annotations

import re
from typing import Any

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

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
        return [ROLE.sub(shown, line) for line in lines]


def shown(match: re.Match[str]) -> str:
    """The last part of a name marked with ``~``, the whole name otherwise."""
    short, name = match.groups()
    return f"`{name.rpartition('.')[2] if short else name}`"
