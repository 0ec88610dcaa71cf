"""How every command speaks: human text on stdout by default, one JSON document with ``--json``, nothing but errors
with ``--quiet``. Progress and notes go to stderr."""

from __future__ import annotations

import errno
import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, ParamSpec

import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from neuronmap import progress
from neuronmap.cli.exits import exit_code
from neuronmap.errors import DiskSpaceError, Interrupted, NeuronMapError, ResourceError, UnwritablePathError

__all__ = ["JsonOption", "Output", "QuietOption", "command_output", "table"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress, notes or tables.")]
P = ParamSpec("P")


class Output:
    """Where one command's results go.

    Args:
        as_json: one JSON document on stdout instead of text.
        quiet: neither progress nor text; results only as the exit code (or as JSON).
    """

    def __init__(self, as_json: bool, quiet: bool) -> None:
        # of the processes that torchrun starts, the first speaks for all
        self.rank = int(os.environ.get("RANK", "0")) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0
        self.as_json, self.quiet = as_json and self.rank == 0, quiet or self.rank > 0
        self.console = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "110")))

    def progress(self) -> progress.Progress:
        """Bars on a terminal, plain lines elsewhere, silence with ``--quiet``."""
        return progress.SilentProgress() if self.quiet else progress.default()

    def show(self, *parts: RenderableType) -> None:
        """Print for people (nothing with ``--json`` or ``--quiet``)."""
        if not self.as_json and not self.quiet:
            for part in parts:
                self.console.print(part, highlight=False, soft_wrap=isinstance(part, str))

    def document(self, value: dict[str, Any]) -> None:
        """Print the JSON document, if one was asked for."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
            sys.stdout.flush()

    def fail(self, error: NeuronMapError) -> None:
        """Show an error: a sentence and the next step on stderr; also the document with ``--json``.

        A process beside the first tells only what may be its own trouble.
        """
        if self.rank > 0 and not isinstance(error, ResourceError):
            return
        self.document(
            {"schema": "neuronmap/error/1", "error": error.code, "message": error.message, "hint": error.hint}
        )
        console = Console(stderr=True)
        word = "stopped" if isinstance(error, Interrupted) else "error"
        console.print(f"[bold red]{word}:[/] {escape(error.message)}", highlight=False, soft_wrap=True)
        if error.hint:
            console.print(f"  {escape(error.hint)}", highlight=False, soft_wrap=True)


def command_output(command: Callable[P, None]) -> Callable[P, None]:
    """Give a command our errors: the message instead of a traceback, and the documented exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        output = Output(bool(kwargs.get("as_json")), bool(kwargs.get("quiet")))
        try:
            command(*args, **kwargs)
        except NeuronMapError as error:
            output.fail(error)
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            output.fail(Interrupted("Stopped by Ctrl-C.", hint="What was finished is kept; run the command again."))
            raise typer.Exit(130) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader (head, less) has left
            raise typer.Exit(0) from None
        except OSError as error:
            if error.errno is None:  # not from the operating system: a bug of ours, or of a library
                raise
            refused = _refusal(error)
            output.fail(refused)
            raise typer.Exit(exit_code(refused)) from None

    return run


def _refusal(error: OSError) -> NeuronMapError:
    """What the operating system refused, as one of our errors."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return DiskSpaceError(f"No space left on the disk{where}.")
    return UnwritablePathError(
        f"The operating system refused to read or write{where}: {error.strerror or error}.",
        hint="Check that the path exists and that you may use it, or set NEURONMAP_HOME to another folder.",
    )


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> Table:
    """A plain table; columns named in ``right`` are right-aligned, those in ``whole`` are never broken (names that are typed again)."""
    made = Table(
        title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0)
    )
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        made.add_column(column, justify=justify, overflow="fold", no_wrap=column in whole)
    for row in rows:
        made.add_row(*(escape(cell) for cell in row))
    return made
