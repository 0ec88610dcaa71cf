"""The ``neuronmap`` command. Each command parses, calls one library function and prints; none of them decides anything.

Rooms that load torch are imported inside the commands, so that help and listings start fast.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

    app: typer.Typer

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module 'neuronmap.cli' has no attribute '{name}'")
    globals()["app"] = found = import_module("neuronmap.cli.commands").app
    return found


def main() -> None:
    """Entry point of the console script: the process is ours, so its memory settings are too.

    A server lives long and runs no model: it gives freed memory back. The explorer's first page waits for everything that is imported
    before it, so ``neuronmap serve`` is there without the other commands.
    """
    if sys.argv[1:2] == ["serve"]:
        from neuronmap.cli.root import command_tree
        from neuronmap.cli.serve import serve

        alone = command_tree()
        alone.command("serve")(serve)
        alone()
        return
    if sys.argv[1:3] != ["zoo", "serve"]:
        from neuronmap.allocator import keep_freed_memory

        keep_freed_memory()
    __getattr__("app")()
