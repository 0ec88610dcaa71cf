"""``neuronmap zoo``: publish, find, check and pull artefacts; in a folder of this machine or on a server."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer
from rich.markup import escape

from neuronmap.cli import zoo_change, zoo_find, zoo_people, zoo_publish, zoo_pull, zoo_server
from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.cli.zoo_options import ZooOption, open_zoo, warn_quietly
from neuronmap.errors import ConfigError, InputError, UnauthorizedError

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="""Publish, find, check and pull SAEs, analyses, explanations, circuits and data sets.

A zoo is a folder of this machine (NEURONMAP_HOME/zoo if nothing else is said), a shared folder, or a server; **--zoo** or NEURONMAP_ZOO
says which. Versions never change, and each is named by the SHA-256 of its manifest. Exit codes: 6 not there or there already,
9 not allowed, 10 the server cannot be reached.""",
)


@app.command("init")
@command_output
def init(
    upstream: Annotated[
        str | None, typer.Option(help="Server that is asked for what this zoo lacks; '' for none.")
    ] = None,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a zoo in a folder; needs no server and no account. It is also made by the first publish.

    With **--upstream**, `neuronmap zoo pull` gets what is not here from that server, and keeps it.

    Examples:

        neuronmap zoo init

        neuronmap zoo init --zoo /shared/team-zoo --upstream https://zoo.example.org
    """
    from neuronmap.zoo.client.local import LocalBackend
    from neuronmap.zoo.client.location import read_upstream, write_upstream

    output = Output(as_json, quiet)
    with open_zoo(output, zoo, make=True) as opened:
        if not isinstance(opened.backend, LocalBackend):
            raise ConfigError("A zoo's server is set up where it runs.", hint="neuronmap zoo serve --help")
        root = opened.backend.root
    if upstream is not None:
        write_upstream(root, upstream or None)
    known = read_upstream(root)
    output.show(f"The zoo in {escape(str(root))} is ready.{f' What it lacks comes from {known}.' if known else ''}")
    output.document({"schema": "neuronmap/zoo.init/1", "zoo": str(root), "upstream": known})


@app.command("login")
@command_output
def login(
    address: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="The zoo's server; NEURONMAP_ZOO if left out.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Keep a token for a zoo's server, in the home folder, readable by you alone. It is asked for without showing it.

    Make the token on the server's page of your account. In scripts pipe it, or set NEURONMAP_ZOO_TOKEN in place of logging in.

    Example:

        neuronmap zoo login https://zoo.example.org
    """
    from neuronmap.zoo.client.location import remember_token
    from neuronmap.zoo.client.zoo import Zoo

    output = Output(as_json, quiet)
    where = _address(address)
    token = os.environ.get("NEURONMAP_ZOO_TOKEN") or _asked_token()
    if where.startswith("http://") and not _on_this_machine(where):
        warning = f"{where} is not encrypted: whoever is on the way can read the token."
        output.progress().note(warning)
        warn_quietly(output, [warning])
    with Zoo(where, token.strip()) as opened:
        opened.backend.about()
        who = opened.whoami()
    user = str(who.get("name") or "")
    if not user:
        raise UnauthorizedError(f"{where} does not know whom this token belongs to.")
    file = remember_token(where, token.strip())
    output.show(escape(f"Logged in to {where} as {user}. The token is kept in {file}."))
    output.document({"schema": "neuronmap/zoo.login/1", "zoo": where, "user": user, "stored": str(file)})


@app.command("logout")
@command_output
def logout(
    address: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="The zoo's server; NEURONMAP_ZOO if left out.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Forget the token for a zoo's server. It stays good until it is revoked there.

    Example:

        neuronmap zoo logout https://zoo.example.org
    """
    from neuronmap.zoo.client.location import credentials_file, forget_token

    output = Output(as_json, quiet)
    where = _address(address)
    known = forget_token(where)
    output.show(escape(f"The token for {where} is forgotten." if known else f"There was no token for {where}."))
    output.document({"schema": "neuronmap/zoo.logout/1", "zoo": where, "user": None, "stored": str(credentials_file())})


@app.command("whoami")
@command_output
def whoami(zoo: ZooOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Say which zoo is used, and as whom.

    Example:

        neuronmap zoo whoami --zoo https://zoo.example.org
    """
    output = Output(as_json, quiet)
    with open_zoo(output, zoo) as opened:
        about = opened.backend.about()
        try:
            me = opened.whoami()
        except UnauthorizedError:
            me = None
        location = opened.location
    name = str(me.get("name")) if me else "nobody in particular (neuronmap zoo login)"
    facts = [["zoo", location], ["its NeuronMap", str(about.get("neuronmap", ""))], ["you are", name]]
    facts += [[key, str(value)] for key, value in (me or {}).items() if key != "name"]
    output.show(table("", ["", ""], facts))
    output.document({"schema": "neuronmap/zoo.whoami/1", "zoo": location, "about": about, "me": me})


@app.command("schema")
@command_output
def schema(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="A kind, whose record's schema is printed; the manifest's if left out.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the JSON schema of the manifest, or of the record of a kind of artefact.

    Examples:

        neuronmap zoo schema

        neuronmap zoo schema CIRCUIT
    """
    from neuronmap.zoo.records import get_kind
    from neuronmap.zoo.schemas import json_schema

    name = "manifest" if kind is None or kind.lower() == "manifest" else get_kind(kind.upper()).name
    found = json_schema(name)
    if as_json:
        Output(as_json, False).document({"schema": "neuronmap/zoo.schema/1", "name": name, "json_schema": found})
    else:
        typer.echo(json.dumps(found, indent=2))


@app.command("conformance")
@command_output
def conformance(
    address: Annotated[str, typer.Argument(metavar="URL", help="A zoo's server.", show_default=False)],
    namespace: Annotated[
        str | None,
        typer.Option(help="Where test artefacts may be published and deleted; only reading is checked if left out."),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check that a server keeps the zoo's protocol and its promises, from outside: use it on a test server, with a token of its own.

    The namespace must be there, and the token be its owner's, with the scopes write and admin: what is published for the checks is yanked
    and deleted again. Exit code 5 if a check fails.

    Examples:

        neuronmap zoo conformance http://127.0.0.1:8770

        neuronmap zoo org create conformance-test --zoo http://127.0.0.1:8770

        neuronmap zoo conformance http://127.0.0.1:8770 --namespace conformance-test
    """
    from neuronmap.zoo.client.location import stored_token
    from neuronmap.zoo.conformance import run_conformance

    output = Output(as_json, quiet)
    where = _address(address)
    report = run_conformance(where, stored_token(where), write_namespace=namespace)
    passed, words = report.conforms, {"pass": "ok", "fail": "FAILED", "skip": "skipped"}
    rows = [[words[one.outcome], one.name, one.reason] for one in report.checks]
    output.show(table(escape(where), ["", "check", ""], rows))
    output.document(
        {
            "schema": "neuronmap/zoo.conformance/1",
            "zoo": where,
            "passed": passed,
            "checks": [
                {
                    "name": one.name,
                    "passed": one.outcome != "fail",
                    "message": f"skipped: {one.reason}" if one.outcome == "skip" else one.reason,
                }
                for one in report.checks
            ],
        }
    )
    if not passed:
        raise typer.Exit(5)


def _address(given: str | None) -> str:
    from neuronmap.zoo.client.location import chosen_location

    found = chosen_location(given)
    if not isinstance(found, str):
        raise InputError(
            f"{found} is a folder; only a server has accounts.",
            hint="Give its address: neuronmap zoo login https://...",
        )
    return found


def _asked_token() -> str:
    """Typed without being shown, or a line of a pipe."""
    if sys.stdin.isatty():
        return str(typer.prompt("Token", hide_input=True, err=True))
    given = sys.stdin.readline().strip()
    if not given:
        raise InputError("There is no token on stdin.", hint="Type it, pipe it, or set NEURONMAP_ZOO_TOKEN.")
    return given


def _on_this_machine(address: str) -> bool:
    from urllib.parse import urlsplit

    return urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")


app.command("publish")(zoo_publish.publish)
app.command("release")(zoo_change.release)
app.command("pull")(zoo_pull.pull)
app.command("search")(zoo_find.search)
app.command("compatible")(zoo_find.compatible)
app.command("show")(zoo_find.show)
app.command("versions")(zoo_find.versions)
app.command("lineage")(zoo_find.lineage)
app.command("alias")(zoo_change.alias)
app.command("deprecate")(zoo_change.deprecate)
app.command("yank")(zoo_change.yank)
app.command("restore")(zoo_change.restore)
app.command("delete")(zoo_change.delete)
app.command("verify")(zoo_change.verify)
app.command("gc")(zoo_change.gc)
app.command("lock")(zoo_pull.lock)
app.command("mirror")(zoo_pull.mirror)
app.command("serve")(zoo_server.serve)
app.add_typer(zoo_people.org, name="org")
app.add_typer(zoo_people.token, name="token")
app.add_typer(zoo_server.admin, name="admin")
