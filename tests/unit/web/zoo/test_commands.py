"""``neuronmap zoo admin`` and the options of ``neuronmap zoo serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.web.zoo.conftest import manifest_of
from typer.testing import CliRunner, Result

from neuronmap.cli import app
from neuronmap.cli.zoo_server import _size
from neuronmap.errors import InputError
from neuronmap.web.zoo.settings import ZooServerSettings
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.people.people import People
from neuronmap.zoo.people.principal import LOCAL

GOOD = "four words nobody guesses"


def typed(*arguments: Any, answer: str = "") -> Result:
    done = CliRunner().invoke(app, ["zoo", *map(str, arguments)], input=answer)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def people(folder: Path) -> People:
    return People(ZooServerSettings(folder=folder).open_registry().database)


def test_accounts_on_the_servers_machine(tmp_path: Path) -> None:
    here = ("--folder", tmp_path)
    made = typed("admin", "create-user", "ada", "--admin", "--quota", "2GiB", *here, answer=f"{GOOD}\n")
    assert (made.exit_code, made.stdout) == (0, "ada has an account, and runs the server.\n")
    assert GOOD not in made.output
    found = people(tmp_path)
    assert found.accounts.list(LOCAL)[0].is_admin
    assert found.organisations.show(LOCAL, "ada").quota_bytes == 2 << 30
    assert typed("admin", "create-user", "ada", *here, answer=f"{GOOD}\n").exit_code == 6
    assert typed("admin", "create-user", "bob", *here, answer="short\n").exit_code == 2
    session = found.sign_in("ada", GOOD)
    assert typed("admin", "set-password", "ada", *here, answer="another four words\n").exit_code == 0
    with pytest.raises(Exception, match="session has ended"):
        found.authenticate(session, session=True)
    assert found.sign_in("ada", "another four words")
    assert typed("admin", "set-password", "eve", *here, answer="another four words\n").exit_code == 6
    assert "may hold 1.0 KiB; 0 B are used" in typed("admin", "quota", "ada", "1KiB", *here).stdout
    assert "as much as there is room" in typed("admin", "quota", "ada", "none", *here).stdout
    assert typed("admin", "quota", "nobody", "1KiB", *here).exit_code == 6


def test_it_is_not_this_machines_own_zoo(home: Path) -> None:
    typed("admin", "create-user", "ada", answer=f"{GOOD}\n")
    assert (home / "zoo-server" / "zoo.sqlite3").exists()
    assert not (home / "zoo").exists()


def test_a_quiet_server_needs_an_account_first(tmp_path: Path) -> None:
    refused = typed("serve", "--quiet", "--port", "0", "--folder", tmp_path)
    assert (refused.exit_code, "has no account" in refused.stderr) == (2, True)
    wrong = typed("serve", "--port", "0", "--folder", tmp_path, "--oidc-issuer", "https://login.example.org")
    assert (wrong.exit_code, "go together" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1000", 1000),
        ("1kB", 1000),
        ("1KiB", 1024),
        ("50GiB", 50 << 30),
        ("1.5 MB", 1_500_000),
        ("2t", 2 * 10**12),
        ("none", None),
    ],
)
def test_sizes(text: str, count: int | None) -> None:
    assert _size(text) == count


@pytest.mark.parametrize("text", ["", "much", "-1", "1XB", "1e9"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InputError, match="is no size"):
        _size(text)


def test_every_file_of_a_servers_store_is_read(tmp_path: Path) -> None:
    here = ("--folder", tmp_path)
    registry = ZooServerSettings(folder=tmp_path).open_registry()
    data = b"some text"
    manifest, written = manifest_of(data)
    key = registry.uploading.begin(LOCAL, "ada", len(data)).key
    upload = registry.uploading.start(LOCAL, key, Digest.of(data), len(data)).key
    registry.uploading.append(LOCAL, upload, 0, [data])
    registry.uploading.finish(LOCAL, upload)
    registry.publishing.publish(LOCAL, key, written)
    registry.close()
    assert "1 files with 9 B are sound" in typed("admin", "verify", *here).stdout
    (tmp_path / "blobs" / manifest.files[0].digest.key).write_bytes(b"some test")
    damaged = typed("admin", "verify", *here)
    assert (damaged.exit_code, "1 files are damaged" in damaged.stderr) == (5, True)
    assert manifest.files[0].digest in damaged.stderr


def test_a_server_that_speaks_plain_http_to_the_network_says_so(tmp_path: Path) -> None:
    for arguments, warned in (
        (("--host", "0.0.0.0"), True),
        (("--host", "0.0.0.0", "--address", "https://zoo.example.org"), False),
        ((), False),
    ):
        done = typed("serve", "--quiet", "--port", "0", "--folder", tmp_path, *arguments)
        assert done.exit_code == 2  # it has no account yet, which --quiet cannot say
        assert ("without encryption" in done.stderr) is warned


def test_a_store_that_does_not_work_is_known_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    refused = typed("serve", "--port", "0", "--folder", tmp_path, "--store", tmp_path / "file" / "blobs")
    assert (refused.exit_code, "zoo's store" in refused.stderr) == (4, True), refused.stderr
