"""``neuronmap zoo serve`` and ``neuronmap zoo admin``: a zoo for several people, and its first account."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output
from neuronmap.cli.serve import listen, run_server, shown_address
from neuronmap.errors import ConfigError, DamagedError, InputError
from neuronmap.paths import human_bytes

if TYPE_CHECKING:
    from neuronmap.zoo.people.accounts import Accounts
    from neuronmap.zoo.people.people import People

__all__ = ["admin", "serve"]

FolderOption = Annotated[
    Path | None,
    typer.Option(help="Folder of database and blobs where they are not named; `zoo-server` in the home if left out."),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(help="Database, such as postgresql+psycopg://...; NEURONMAP_ZOO_DATABASE or SQLite in the folder."),
]
StoreOption = Annotated[
    str | None, typer.Option(help="Blobs: a folder or s3://bucket/prefix; NEURONMAP_ZOO_STORE or in the folder.")
]
NameArgument = Annotated[str, typer.Argument(help="Name of the account; also of its namespace.")]
StdinOption = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


@command_output
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", help="Port; 0 takes a free one.")] = 8770,
    address: Annotated[
        str | None, typer.Option(help="Address under which people reach it, such as https://zoo.example.org.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Further name in the Host header that is answered; repeat for more.")
    ] = None,
    name: Annotated[str, typer.Option(help="What the zoo calls itself.")] = "NeuronMap zoo",
    folder: FolderOption = None,
    database: DatabaseOption = None,
    store: StoreOption = None,
    anonymous_read: Annotated[
        bool, typer.Option("--anonymous-read", help="Let everybody read what is public.")
    ] = False,
    quota: Annotated[
        str, typer.Option(help="What a new namespace may hold, such as 50GiB; none for no limit.")
    ] = "50GiB",
    reading: Annotated[
        str, typer.Option(help="What pages of features may keep of files that lie in an object store, such as 4GiB.")
    ] = "4GiB",
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address of a proxy that names the asker in X-Forwarded-For; repeat for more."),
    ] = None,
    oidc_issuer: Annotated[str | None, typer.Option(help="Identity provider through which people sign in.")] = None,
    oidc_client_id: Annotated[str | None, typer.Option(help="What it calls this zoo.")] = None,
    oidc_sign_up: Annotated[
        bool, typer.Option("--oidc-sign-up/--no-oidc-sign-up", help="Give an account to whom it knows.")
    ] = True,
    quiet: QuietOption = False,
) -> None:
    """Serve a zoo for several people: accounts, organisations, tokens; nothing of this machine's library.

    It listens on 127.0.0.1 and speaks plain http; a proxy that speaks https stands before it (**--address**). Without an account it prints
    a setup token, good once, for the first administrator; `neuronmap zoo admin create-user` makes one as well. The secret of an identity
    provider is read from NEURONMAP_ZOO_OIDC_SECRET.

    Examples:

        neuronmap zoo serve

        neuronmap zoo serve --database postgresql://zoo@db/zoo --store s3://lab-zoo --address https://zoo.example.org
    """
    from neuronmap.web.settings import is_loopback
    from neuronmap.web.zoo.server import create_zoo_app, served_zoo
    from neuronmap.web.zoo.settings import ZooServerSettings

    output = Output(False, quiet)
    settings = ZooServerSettings(
        host=host,
        port=port,
        address=address,
        allowed_hosts=tuple(allowed_host or ()),
        name=name,
        folder=folder,
        database=database,
        store=store,
        anonymous_read=anonymous_read,
        default_quota=_size(quota),
        reading_bytes=_bytes(reading),
        proxies=tuple(proxy or ()),
        oidc_issuer=oidc_issuer,
        oidc_client_id=oidc_client_id,
        oidc_sign_up=oidc_sign_up,
    )
    zoo = served_zoo(settings)
    if not is_loopback(host) and not (address or "").startswith("https://"):
        note = (
            f"Listening on {host} without encryption: whoever is on the way can read passwords and tokens. Let a proxy that speaks https "
            "stand before it, and give its --address https://..."
        )
        typer.secho(f"warning: {note}", fg="yellow", err=True)
    setup = _setup_lines(zoo.people.accounts, quiet)
    listening = listen(host, port)
    shown = (address or "").rstrip("/") or shown_address(host, listening, "").rstrip("/")
    started = [f"NeuronMap zoo: {shown}", "Ctrl-C stops it.", *(line.format(shown=shown) for line in setup)]
    run_server(lambda: create_zoo_app(settings, zoo), listening, settings.base_path, started, output)


def _setup_lines(accounts: Accounts, quiet: bool) -> list[str]:
    """How the first administrator is made, while there is none; ``{shown}`` stands for the server's address."""
    older = accounts.has_setup_token()
    token = accounts.new_setup_token()
    if token is None:
        return []
    if quiet:
        raise ConfigError(
            "The zoo has no account, and with --quiet its setup token could not be printed.",
            hint="neuronmap zoo admin create-user <name> --admin",
        )
    replaced = "A setup token that this database's servers have printed before is good no longer: this is the one."
    return [
        *([replaced] if older else []),
        f"It has no account yet. The first administrator is made with this token (good once, for a day):\n  {token}\n"
        "  POST {shown}/api/zoo/setup, or: neuronmap zoo admin create-user <name> --admin",
    ]


admin = typer.Typer(
    no_args_is_help=True, help="Accounts, quotas and verification of a zoo's server, on its own machine."
)


def _people(folder: Path | None, database: str | None, default_quota: int | None = None) -> People:
    """The people of the server's zoo."""
    from neuronmap.web.zoo.settings import ZooServerSettings
    from neuronmap.zoo.people.people import People

    registry = ZooServerSettings(folder=folder, database=database).open_registry()
    return People(registry.database, default_quota=default_quota)


def _password(from_stdin: bool) -> str:
    """A password, typed twice or read from stdin; never from the command line, where others could see it."""
    if from_stdin or not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


@admin.command("create-user")
@command_output
def create_user(
    name: NameArgument,
    is_admin: Annotated[bool, typer.Option("--admin", help="They run the server.")] = False,
    email: Annotated[str | None, typer.Option(help="To reach them.")] = None,
    quota: Annotated[str, typer.Option(help="What their namespace may hold; none for no limit.")] = "50GiB",
    password_stdin: StdinOption = False,
    folder: FolderOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make an account. The password is asked for, or read from stdin."""
    from neuronmap.zoo.people.principal import LOCAL

    people = _people(folder, database, _size(quota))
    output = Output(as_json, quiet)
    made = people.accounts.create(LOCAL, name, password=_password(password_stdin), email=email, is_admin=is_admin)
    output.show(f"{name} has an account{', and runs the server' if is_admin else ''}.")
    output.document({"schema": "neuronmap/zoo.admin.create-user/1", "user": made.to_dict()})


@admin.command("set-password")
@command_output
def set_password(
    name: NameArgument,
    password_stdin: StdinOption = False,
    folder: FolderOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Give an account a new password; its browsers are signed out, its tokens stay good."""
    from neuronmap.zoo.people.principal import LOCAL

    people = _people(folder, database)
    people.accounts.set_password(LOCAL, name, _password(password_stdin))
    output = Output(as_json, quiet)
    output.show(f"{name} has a new password.")
    output.document({"schema": "neuronmap/zoo.admin.set-password/1", "user": name})


@admin.command("quota")
@command_output
def set_quota(
    namespace: Annotated[str, typer.Argument(help="A person's or an organisation's.")],
    size: Annotated[str, typer.Argument(help="What it may hold, such as 200GiB; none for no limit.")],
    folder: FolderOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say how much a namespace may hold. What is there already stays."""
    from neuronmap.zoo.people.principal import LOCAL

    found = _people(folder, database).organisations.set_quota(LOCAL, namespace, _size(size))
    allowed = "as much as there is room" if found.quota_bytes is None else human_bytes(found.quota_bytes)
    output = Output(as_json, quiet)
    output.show(f"{namespace} may hold {allowed}; {human_bytes(found.used_bytes or 0)} are used.")
    output.document({"schema": "neuronmap/zoo.admin.quota/1", "namespace": found.to_dict()})


@admin.command("verify")
@command_output
def verify(
    limit: Annotated[
        int | None,
        typer.Option(help="Files to read, those first whose last reading is the oldest; all if left out.", min=1),
    ] = None,
    folder: FolderOption = None,
    database: DatabaseOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read the bytes in the server's store and compare them with their digests. People may go on working meanwhile.

    Give the same --folder, --database and --store as to `neuronmap zoo serve`. What is damaged is marked, and is not sent to anybody
    until it is published again. Exit code 5 if something is damaged or missing.

    Examples:

        neuronmap zoo admin verify

        neuronmap zoo admin verify --database postgresql://zoo@db/zoo --store s3://lab-zoo --limit 1000
    """
    from neuronmap.web.zoo.settings import ZooServerSettings
    from neuronmap.zoo.blobs import probe

    output = Output(as_json, quiet)
    registry = ZooServerSettings(folder=folder, database=database, store=store).open_registry()
    try:
        probe(registry.store)
        with output.progress().task("verifying", None, "bytes") as task:
            done = 0

            def shown(at: int, total: int) -> None:
                nonlocal done
                del total
                task.advance(at - done)
                done = at

            found = registry.housekeeping.verify(limit=limit, progress=shown)
    finally:
        registry.close()
    if not found.sound:
        lost = ", ".join([*found.damaged, *found.missing][:5])
        raise DamagedError(
            f"The store {registry.store} is not sound: {len(found.damaged)} files are damaged, {len(found.missing)} are missing ({lost}).",
            hint="Restore them from a backup of the store, or publish them again.",
        )
    output.show(f"{found.checked:,} files with {human_bytes(found.checked_bytes)} are sound.")
    output.document({"schema": "neuronmap/zoo.admin.verify/1", "store": found.to_dict()})


def _size(text: str) -> int | None:
    """Bytes of ``50GiB``, ``200 GB``, ``1000000``; None for ``none``."""
    if text.strip().lower() == "none":
        return None
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InputError(f"{text!r} is no size: such as 500MB, 50GiB, or none.")
    return _bytes_of(found)


def _bytes(text: str) -> int:
    """The same where there has to be a limit."""
    size = _size(text)
    if size is None:
        raise InputError(f"{text!r}: a size is needed here, such as 500MB or 50GiB; 0 keeps nothing.")
    return size


def _bytes_of(found: re.Match[str]) -> int:
    power = " kmgt".index(found[2].lower()) if found[2] else 0
    return int(float(found[1]) * (1024 if found[3] or not found[2] else 1000) ** power)
