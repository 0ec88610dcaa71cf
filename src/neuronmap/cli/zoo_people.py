"""``neuronmap zoo org`` and ``neuronmap zoo token``: who belongs to what on a zoo's server, and what programs come in with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.cli.zoo_options import ZooOption
from neuronmap.errors import InputError, UnauthorizedError, ZooOfflineError

if TYPE_CHECKING:
    from neuronmap.zoo.client.http import ZooHTTP
    from neuronmap.zoo.people.views import NamespaceView

__all__ = ["org", "token"]

_API = "/api/zoo"

org = typer.Typer(no_args_is_help=True, help="Organisations of a zoo's server: namespaces of several people.")
token = typer.Typer(no_args_is_help=True, help="Your tokens on a zoo's server, for programs and other machines.")


class RoleName(StrEnum):
    """What somebody may do in an organisation."""

    READER = "reader"
    WRITER = "writer"
    OWNER = "owner"


class ScopeName(StrEnum):
    """What a token is good for."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


OrganisationArgument = Annotated[str, typer.Argument(help="Name of the organisation.", show_default=False)]
UserArgument = Annotated[str, typer.Argument(help="Name of their account.", show_default=False)]


@contextmanager
def _server(zoo: str | None) -> Iterator[ZooHTTP]:
    """The server that is meant, asked as whoever logged in."""
    from neuronmap.zoo.client.http import ZooHTTP
    from neuronmap.zoo.client.location import chosen_location, is_offline, stored_token

    where = chosen_location(zoo)
    if not isinstance(where, str):
        raise InputError(
            f"{where} is a folder; only a server has accounts.", hint="--zoo https://..., or set NEURONMAP_ZOO."
        )
    if is_offline():
        raise ZooOfflineError(f"{where} is not asked: NEURONMAP_OFFLINE is set.", hint="Unset it.")
    known = stored_token(where)
    if known is None:
        raise UnauthorizedError(f"{where} must know who asks.", hint=f"neuronmap zoo login {where}")
    opened = ZooHTTP(where, known)
    try:
        yield opened
    finally:
        opened.close()


def _place(name: str, user: str | None = None) -> str:
    """Address of a namespace, or of somebody in it.

    Raises:
        InputError: one of them cannot be a name.
    """
    from neuronmap.zoo.names import check_namespace

    place = f"{_API}/namespaces/{check_namespace(name)}"
    return place if user is None else f"{place}/members/{check_namespace(user)}"


def _document(command: str, server: ZooHTTP, **values: object) -> dict[str, object]:
    """The JSON document of a command."""
    return {"schema": f"neuronmap/zoo.{command}/1", "zoo": server.base, **values}


def _shown(value: object) -> str:
    """What a server says, as it may be printed."""
    from neuronmap.zoo.client.http import plain

    return escape(plain(str(value)))


# --- organisations ------------------------------------------------------------------------------------------------------


@org.command("create")
@command_output
def create_org(
    name: OrganisationArgument,
    title: Annotated[str, typer.Option(help="Its name for people.")] = "",
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make an organisation; you own it. Its name is never given again. Needs a token with the scope admin.

    Example:

        neuronmap zoo org create vision-lab --title "Vision lab"
    """
    output = Output(as_json, quiet)
    with _server(zoo) as server:
        made = _namespace(server.json("POST", f"{_API}/namespaces", body={"name": name, "title": title}))
    output.show(f"{escape(name)} is there, and you own it. Let people in: neuronmap zoo org add {escape(name)} <user>")
    output.document(_document("org.create", server, namespace=made.to_dict()))


@org.command("members")
@command_output
def members(
    name: OrganisationArgument, zoo: ZooOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Who belongs to an organisation, in which role, and how much it holds. For members.

    Example:

        neuronmap zoo org members vision-lab
    """
    output = Output(as_json, quiet)
    with _server(zoo) as server:
        found = _namespace(server.json("GET", _place(name)))
    if found.members is None:
        output.show(f"{escape(name)} shows its members to those alone who belong to it.")
    else:
        _show_members(output, name, found)
    output.document(_document("org.members", server, namespace=found.to_dict()))


@org.command("add")
@command_output
def add(
    name: OrganisationArgument,
    user: UserArgument,
    role: Annotated[
        RoleName, typer.Option(help="reader sees what is private, writer publishes, owner governs.")
    ] = RoleName.WRITER,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Let somebody into an organisation, or give a member another role. For owners.

    Example:

        neuronmap zoo org add vision-lab bob --role reader
    """
    output = Output(as_json, quiet)
    with _server(zoo) as server:
        found = _namespace(server.json("PUT", _place(name, user), body={"role": role.value}))
    _show_members(output, name, found)
    output.document(_document("org.add", server, namespace=found.to_dict()))


@org.command("remove")
@command_output
def remove(
    name: OrganisationArgument,
    user: UserArgument,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Put somebody out of an organisation: owners anybody, others themselves. The last owner stays.

    Example:

        neuronmap zoo org remove vision-lab bob
    """
    output = Output(as_json, quiet)
    with _server(zoo) as server:
        server.json("DELETE", _place(name, user))
    output.show(f"{escape(user)} does not belong to {escape(name)} any more.")
    output.document(_document("org.remove", server, namespace=name, user=user))


def _namespace(answer: object) -> NamespaceView:
    """A server's answer about a namespace."""
    from neuronmap.zoo.client.remote import read_answer
    from neuronmap.zoo.people.views import NamespaceView

    return read_answer(NamespaceView, answer)


def _show_members(output: Output, name: str, found: NamespaceView) -> None:
    from neuronmap.paths import human_bytes

    rows = [[_shown(one.user), _shown(one.role)] for one in found.members or ()]
    allowed = "no limit" if found.quota_bytes is None else human_bytes(found.quota_bytes)
    held = f"{human_bytes(found.used_bytes or 0)} of {allowed}"
    output.show(table("", ["member", "role"], rows), f"{escape(name)} holds {held}.")


# --- tokens -------------------------------------------------------------------------------------------------------------


@token.command("create")
@command_output
def create_token(
    title: Annotated[str, typer.Argument(help="What it is for, such as 'cluster'.", show_default=False)],
    scope: Annotated[
        list[ScopeName] | None,
        typer.Option(
            help="read, write (publish, change), admin (govern namespaces, make tokens); repeat; read if left out."
        ),
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="The only namespace that it is good for.")] = None,
    days: Annotated[float, typer.Option(help="For how long it is good; 0 for ever.", min=0)] = 90.0,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a token and print it on stdout, this once. It is never good for more than the one that you are logged in with.

    Your first token is made on the server's page of your account. With **--json** the secret is the field `token.token`, and nowhere else.

    Examples:

        neuronmap zoo token create laptop --scope write

        neuronmap zoo token create ci --scope write --namespace vision-lab --days 30
    """
    from neuronmap.zoo.client.http import plain
    from neuronmap.zoo.client.remote import read_answer
    from neuronmap.zoo.people.views import NewToken

    output = Output(as_json, quiet)
    body = {
        "title": title,
        "scopes": [one.value for one in scope or [ScopeName.READ]],
        "namespace": namespace,
        "seconds": days * 86_400 if days else None,
    }
    with _server(zoo) as server:
        made = read_answer(NewToken, server.json("POST", f"{_API}/tokens", body=body))
        until = f"until {_shown(made.expires)}" if made.expires else "for ever"
        output.progress().note(f"Token {made.id} is good {until}; it is shown this once. {server.base}")
    if not as_json:
        typer.echo(plain(made.token))
    output.document(_document("token.create", server, token=made.to_dict()))


@token.command("list")
@command_output
def list_tokens(zoo: ZooOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Your tokens that are good, and the browsers in which you are signed in; without their secrets.

    Example:

        neuronmap zoo token list
    """
    from neuronmap.zoo.client.remote import read_answer
    from neuronmap.zoo.people.views import TokenList

    output = Output(as_json, quiet)
    with _server(zoo) as server:
        found = read_answer(TokenList, server.json("GET", f"{_API}/tokens"))
    rows = [
        [
            str(one.id),
            _shown(one.kind),
            _shown(one.title),
            _shown(f"{one.shown}..."),
            _shown(" ".join(one.scopes)),
            _shown(one.namespace or "all"),
            _shown((one.expires or "never")[:10]),
            _shown((one.used or "never")[:10]),
        ]
        for one in found.tokens
    ]
    output.show(table("", ["number", "", "for", "begins", "scopes", "namespace", "ends", "used"], rows))
    output.document(_document("token.list", server, tokens=found.to_dict()["tokens"]))


@token.command("revoke")
@command_output
def revoke(
    number: Annotated[int, typer.Argument(help="As `neuronmap zoo token list` shows it.", min=1, show_default=False)],
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """End one of your tokens, or sign a browser out, from this moment on.

    Example:

        neuronmap zoo token revoke 12
    """
    output = Output(as_json, quiet)
    with _server(zoo) as server:
        server.json("DELETE", f"{_API}/tokens/{number}")
    output.show(f"Token {number} is not good any more.")
    output.document(_document("token.revoke", server, number=number))
