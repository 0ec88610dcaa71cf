"""``neuronmap serve``: the explorer on this machine."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from neuronmap.cli.output import Output, QuietOption, command_output
from neuronmap.errors import ConfigError, InputError, NeuronMapError

__all__ = ["listen", "run_server", "serve", "shown_address"]


@command_output
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any other than this machine's needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", help="Port; 0 takes a free one.")] = 8765,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the first page in the browser.")] = False,
    jobs: Annotated[bool, typer.Option("--jobs/--no-jobs", help="Run queued jobs from here.")] = True,
    keep_jobs: Annotated[
        bool, typer.Option("--keep-jobs", help="Let running jobs go on by themselves when the server is stopped.")
    ] = False,
    text_folder: Annotated[
        Path | None, typer.Option(help="Folder whose files may be named as text in the browser.")
    ] = None,
    model_folder: Annotated[Path | None, typer.Option(help="Folder whose models may be named in the browser.")] = None,
    database: Annotated[
        str | None,
        typer.Option(help="Database of jobs, such as postgresql+psycopg://...; SQLite in the home if left out."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Further name under which a proxy serves this; repeat for more.")
    ] = None,
    user_header: Annotated[
        str | None, typer.Option(help="Header in which a trusted, signing-in reverse proxy names the user.")
    ] = None,
    base_path: Annotated[str, typer.Option(help="Path under which a proxy serves this, such as /neuronmap.")] = "",
    get: Annotated[
        str | None, typer.Option("--get", metavar="PATH", help="Print one page or API answer, and do not serve.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Open the explorer: a local, private site of this machine's SAEs, with training, features, texts and steering.

    Nothing leaves this machine and nothing is loaded from elsewhere. It listens on 127.0.0.1; for another address set
    NEURONMAP_TOKEN to a long random text (at least 16 characters), or put a signing-in proxy before it (**--user-header**).
    Jobs go on when a page is closed; Ctrl-C stops them with a checkpoint, and the next `neuronmap serve` goes on with them.

    Examples:

        neuronmap serve --open

        neuronmap serve --get /api/sae/list_models

        NEURONMAP_TOKEN=$(openssl rand -hex 32) neuronmap serve --host 0.0.0.0
    """
    from neuronmap.web.settings import ServerSettings

    output = Output(False, quiet)
    settings = ServerSettings(
        host=host,
        port=port,
        supervise=jobs and get is None,
        keep_jobs=keep_jobs,
        text_folder=_folder("--text-folder", text_folder),
        model_folder=_folder("--model-folder", model_folder),
        database=database,
        allowed_hosts=tuple(allowed_host or ()),
        user_header=user_header,
        base_path=base_path,
    )
    if get is not None:
        _print(settings, get)
        return
    listening = listen(host, port)
    address = shown_address(host, listening, base_path)

    def making() -> Any:
        from neuronmap.web.app import create_app

        return create_app(settings)

    started = [f"NeuronMap explorer: {address}", "Ctrl-C stops it."]
    run_server(making, listening, base_path, started, output, address if open_browser else None)


def _folder(option: str, folder: Path | None) -> Path | None:
    if folder is not None and not folder.is_dir():
        raise InputError(f"{option} {folder} is not a folder.")
    return folder.resolve() if folder is not None else None


def _print(settings: Any, path: str) -> None:
    """One answer on stdout; an error's status becomes the exit code's error."""
    from neuronmap.web.app import create_app
    from neuronmap.web.fetch import fetch_now

    if not path.startswith("/"):
        raise ConfigError(f"--get {path}: a path begins with /, such as /api/sae/list_models.")
    answer = fetch_now(create_app(settings), path)
    sys.stdout.buffer.write(answer.body)
    sys.stdout.flush()
    if answer.status >= 400:
        raise NeuronMapError(f"{path} was answered with status {answer.status}.")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, or a sentence on why there is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise InputError(
            f"Cannot listen on {host}, port {port}: {error.strerror or error}.",
            hint="Another server may be running there; choose another --port, or 0 for a free one.",
        ) from None
    made.listen(128)
    made.set_inheritable(False)
    return made


def shown_address(host: str, listening: socket.socket, base_path: str) -> str:
    """What to type into a browser on this machine."""
    shown = "localhost" if host in ("127.0.0.1", "0.0.0.0") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}{base_path}/"


def run_server(
    making: Callable[[], Any],
    listening: socket.socket,
    base_path: str,
    started: Sequence[str],
    output: Output,
    opened: str | None = None,
) -> None:
    """Serve until Ctrl-C.

    Args:
        making: makes the application.
        listening: the socket.
        base_path: path under which a proxy serves it.
        started: what to print once it answers.
        output: where.
        opened: address to open in the browser then.
    """
    from neuronmap.web.collecting import uncollected

    with uncollected():
        import uvicorn

        from neuronmap.web.logs import log_plainly

        log_plainly()
        app = making()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if self.should_exit:
                return
            output.show(*started)
            if opened is not None:
                import webbrowser

                webbrowser.open(opened)

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
        proxy_headers=False,
        root_path=base_path,
    )
    try:
        Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        listening.close()
    output.show("Stopped.")
