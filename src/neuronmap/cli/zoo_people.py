"""``neuronmap zoo org`` and ``neuronmap zoo token``: who belongs to what on a zoo's server, and what programs come in with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from neuronmap.cli.output import Output, QuietOption, command_output, table
from neuronmap.cli.zoo_options import ZooOption
from neuronmap.errors import InputError, UnauthorizedError, ZooOfflineError

if TYPE_CHECKING:
    from neuronmap.zoo.client.http import ZooHTTP

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
    quiet: QuietOption = False,
) -> None:
    """Make an organisation; you own it. Its name is never given again. Needs a token with the scope admin.

    Example:

        neuronmap zoo org create vision-lab --title "Vision lab"
    """
    output = Output(False, quiet)
    with _server(zoo) as server:
        server.json("POST", f"{_API}/namespaces", body={"name": name, "title": title})
    output.show(f"{escape(name)} is there, and you own it. Let people in: neuronmap zoo org add {escape(name)} <user>")


@org.command("members")
@command_output
def members(name: OrganisationArgument, zoo: ZooOption = None, quiet: QuietOption = False) -> None:
    """Who belongs to an organisation, in which role, and how much it holds. For members.

    Example:

        neuronmap zoo org members vision-lab
    """
    output = Output(False, quiet)
    with _server(zoo) as server:
        found = server.json("GET", _place(name))
    if found.get("members") is None:
        output.show(f"{escape(name)} shows its members to those alone who belong to it.")
        return
    _show_members(output, name, found)


@org.command("add")
@command_output
def add(
    name: OrganisationArgument,
    user: UserArgument,
    role: Annotated[
        RoleName, typer.Option(help="reader sees what is private, writer publishes, owner governs.")
    ] = RoleName.WRITER,
    zoo: ZooOption = None,
    quiet: QuietOption = False,
) -> None:
    """Let somebody into an organisation, or give a member another role. For owners.

    Example:

        neuronmap zoo org add vision-lab bob --role reader
    """
    output = Output(False, quiet)
    with _server(zoo) as server:
        found = server.json("PUT", _place(name, user), body={"role": role.value})
    _show_members(output, name, found)


@org.command("remove")
@command_output
def remove(name: OrganisationArgument, user: UserArgument, zoo: ZooOption = None, quiet: QuietOption = False) -> None:
    """Put somebody out of an organisation: owners anybody, others themselves. The last owner stays.

    Example:

        neuronmap zoo org remove vision-lab bob
    """
    output = Output(False, quiet)
    with _server(zoo) as server:
        server.json("DELETE", _place(name, user))
    output.show(f"{escape(user)} does not belong to {escape(name)} any more.")


def _show_members(output: Output, name: str, found: dict[str, Any]) -> None:
    from neuronmap.paths import human_bytes

    rows = [[_shown(one["user"]), _shown(one["role"])] for one in found.get("members") or []]
    used, quota = found.get("used_bytes"), found.get("quota_bytes")
    held = f"{human_bytes(used or 0)} of {'no limit' if quota is None else human_bytes(quota)}"
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
    quiet: QuietOption = False,
) -> None:
    """Make a token and print it on stdout, this once. It is never good for more than the one that you are logged in with.

    Your first token is made on the server's page of your account.

    Examples:

        neuronmap zoo token create laptop --scope write

        neuronmap zoo token create ci --scope write --namespace vision-lab --days 30
    """
    from neuronmap.zoo.client.http import plain

    output = Output(False, quiet)
    body = {
        "title": title,
        "scopes": [one.value for one in scope or [ScopeName.READ]],
        "namespace": namespace,
        "seconds": days * 86_400 if days else None,
    }
    with _server(zoo) as server:
        made = server.json("POST", f"{_API}/tokens", body=body)
        until = f"until {_shown(made['expires'])}" if made.get("expires") else "for ever"
        output.progress().note(f"Token {made['id']} is good {until}; it is shown this once. {server.base}")
    typer.echo(plain(str(made["token"])))


@token.command("list")
@command_output
def list_tokens(zoo: ZooOption = None, quiet: QuietOption = False) -> None:
    """Your tokens that are good, and the browsers in which you are signed in; without their secrets.

    Example:

        neuronmap zoo token list
    """
    output = Output(False, quiet)
    with _server(zoo) as server:
        found = server.json("GET", f"{_API}/tokens")
    rows = [
        [
            str(one["id"]),
            _shown(one["kind"]),
            _shown(one["title"]),
            _shown(f"{one['shown']}..."),
            _shown(" ".join(one["scopes"])),
            _shown(one["namespace"] or "all"),
            _shown((one["expires"] or "never")[:10]),
            _shown((one["used"] or "never")[:10]),
        ]
        for one in found["tokens"]
    ]
    output.show(table("", ["number", "", "for", "begins", "scopes", "namespace", "ends", "used"], rows))


@token.command("revoke")
@command_output
def revoke(
    number: Annotated[int, typer.Argument(help="As `neuronmap zoo token list` shows it.", min=1, show_default=False)],
    zoo: ZooOption = None,
    quiet: QuietOption = False,
) -> None:
    """End one of your tokens, or sign a browser out, from this moment on.

    Example:

        neuronmap zoo token revoke 12
    """
    output = Output(False, quiet)
    with _server(zoo) as server:
        server.json("DELETE", f"{_API}/tokens/{number}")
    output.show(f"Token {number} is not good any more.")
