"""The root of the command tree: what stands above every command."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

__all__ = ["command_tree"]


def command_tree() -> typer.Typer:
    """``neuronmap`` without commands."""
    made = typer.Typer(
        name="neuronmap",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_show_locals=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="""Train, evaluate, explore and share sparse autoencoders (SAEs) on any Hugging Face transformer.

Start with `neuronmap demo` (about five minutes), then `neuronmap sae train --help`.
Everything is kept under one folder: NEURONMAP_HOME, or the platform's user data folder.""",
    )
    made.callback()(_root)
    return made


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"neuronmap {version('neuronmap')}")
        raise typer.Exit


def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """NeuronMap."""
    del show_version
