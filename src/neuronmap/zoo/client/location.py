"""Which zoo is meant, and who asks: addresses, tokens, offline mode, upstream.

NEURONMAP_ZOO            folder or address; unset: <home>/zoo
NEURONMAP_ZOO_TOKEN      token for the server, before what `neuronmap zoo login` stored
NEURONMAP_OFFLINE        1: nothing is asked of any server; only what was pulled before is used
NEURONMAP_ZOO_UPSTREAM   for a zoo in a folder: server that is asked for what it lacks, before <root>/zoo.json

<home>/zoo/credentials.json   {"<address>": "<token>"}, for its owner alone (0600)
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from urllib.parse import urlsplit

from neuronmap import paths
from neuronmap.errors import InputError, NotInZooError, UnwritablePathError

__all__ = [
    "chosen_location",
    "credentials_file",
    "forget_token",
    "is_address",
    "is_offline",
    "read_upstream",
    "remember_token",
    "require_zoo",
    "stored_token",
    "write_upstream",
    "zoo_home",
]

_SETTINGS = "zoo.json"


def zoo_home() -> Path:
    """``<home>/zoo``: the embedded zoo, credentials, and what was pulled."""
    return paths.home() / "zoo"


def is_address(location: str) -> bool:
    """Whether it is a server's address, not a folder."""
    return location.startswith(("http://", "https://"))


def chosen_location(location: str | Path | None = None) -> str | Path:
    """The zoo that is meant: as given, else NEURONMAP_ZOO, else the one in the home folder.

    Returns:
        The address of a server without a trailing slash, or a folder.

    Raises:
        InputError: an address without a host, or with a name and password in it.
    """
    given = str(location) if location is not None else os.environ.get("NEURONMAP_ZOO", "")
    if not given:
        return zoo_home()
    if not is_address(given):
        if "://" in given:
            raise InputError(f"{given[:200]!r} is no zoo: a folder, or an address with http:// or https://.")
        return Path(given).expanduser()
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        raise InputError(f"{given[:200]!r} is no address of a zoo.") from None
    if not parts.hostname or parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            f"{given[:200]!r} is no address of a zoo: a host and perhaps a path, without name, password or question mark."
        )
    del port
    return given.rstrip("/")


def require_zoo(root: Path) -> None:
    """Refuse a folder in which there is no zoo, without making one.

    Raises:
        NotInZooError: there is none.
    """
    if not (root / "zoo.sqlite3").is_file():
        raise NotInZooError(
            f"There is no zoo in {root}.",
            hint="Check the path, --zoo and NEURONMAP_ZOO. The first publish, or neuronmap zoo init, makes one.",
        )


def is_offline(asked: bool | None = None) -> bool:
    """Whether servers must not be asked: as said, else by NEURONMAP_OFFLINE."""
    return asked if asked is not None else os.environ.get("NEURONMAP_OFFLINE", "") not in ("", "0")


# --- tokens --------------------------------------------------------------------------------------------------------------------


def credentials_file() -> Path:
    """Where tokens are kept."""
    return zoo_home() / "credentials.json"


def stored_token(address: str, *, named: bool = True) -> str | None:
    """The token for a server: from the environment, else from ``neuronmap zoo login``.

    NEURONMAP_ZOO_TOKEN belongs to the server that NEURONMAP_ZOO names. Where that is not set, it goes to the server that the user named
    as the zoo of this command, and to no other.

    Args:
        address: of the server.
        named: whether the user named it as the zoo; not so an upstream, or a zoo that is mirrored.
    """
    token, meant = os.environ.get("NEURONMAP_ZOO_TOKEN"), os.environ.get("NEURONMAP_ZOO", "").rstrip("/")
    if token and (meant == address or (named and not is_address(meant))):
        return token
    return _credentials().get(address)


def remember_token(address: str, token: str) -> Path:
    """Keep a token for a server; the file is readable by its owner alone."""
    return _write({**_credentials(), address: token})


def forget_token(address: str) -> bool:
    """Forget a server's token; whether there was one."""
    known = _credentials()
    if known.pop(address, None) is None:
        return False
    _write(known)
    return True


def _credentials() -> dict[str, str]:
    try:
        found = paths.read_json(credentials_file())
    except FileNotFoundError:
        return {}
    return {str(name): str(token) for name, token in found.items()} if isinstance(found, dict) else {}


def _write(tokens: dict[str, str]) -> Path:
    file = credentials_file()
    paths.new_folder(file.parent)
    aside = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            json.dump(tokens, opened, indent=2)
        os.replace(aside, file)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise UnwritablePathError(f"Cannot write {file}: {error.strerror or error}.") from error
    return file


# --- upstream --------------------------------------------------------------------------------------------------------------------


def read_upstream(root: Path) -> str | None:
    """The server that a zoo in a folder asks for what it lacks; None for none."""
    given = os.environ.get("NEURONMAP_ZOO_UPSTREAM")
    if given is None:
        try:
            found = paths.read_json(root / _SETTINGS)
        except FileNotFoundError:
            return None
        given = found.get("upstream") if isinstance(found, dict) else None
    return str(chosen_location(given)) if given else None


def write_upstream(root: Path, upstream: str | None) -> None:
    """Set, or with None remove, the upstream of a zoo in a folder.

    Raises:
        InputError: it is no address.
    """
    if upstream is not None and not is_address(upstream):
        raise InputError(f"{upstream[:200]!r} is no address of a zoo's server.")
    checked = str(chosen_location(upstream)) if upstream is not None else None
    paths.write_json(paths.new_folder(root) / _SETTINGS, {"upstream": checked})
