"""The server's log: what is no client's business, as lines on stderr.

structlog takes longer to import than the first page may take, so it is imported with the first message.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

__all__ = ["log_plainly", "logger"]

_plainly = False


def log_plainly() -> None:
    """From now on: one line a message, on stderr, without the values of variables. For a process that serves."""
    global _plainly
    _plainly = True


def logger(name: str = "neuronmap.web") -> Any:
    """Where messages go.

    Args:
        name: whose.
    """
    import structlog

    if _plainly:
        _configure()
    return structlog.get_logger(name)


@cache
def _configure() -> None:
    import structlog

    renderer = structlog.dev.ConsoleRenderer(
        exception_formatter=structlog.dev.plain_traceback
    )  # without values of variables
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso"), renderer],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
