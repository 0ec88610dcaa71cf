"""The ``neuronmap`` command. Each command parses, calls one library function and prints; none of them decides anything.

Rooms that load torch are imported inside the commands, so that help and listings start fast.
"""

from __future__ import annotations

from neuronmap.cli.app import app, main

__all__ = ["app", "main"]
