"""``neuronmap zoo org`` and ``neuronmap zoo token`` against a real server: who gets in, and with what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.zoo.client.conftest import Served
from typer.testing import CliRunner, Result

from neuronmap.cli import app
from neuronmap.web.zoo.settings import ZooServerSettings
from neuronmap.zoo.people.people import People
from neuronmap.zoo.people.principal import LOCAL


@pytest.fixture(autouse=True)
def logged_in(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURONMAP_ZOO", served.address)
    monkeypatch.setenv("NEURONMAP_ZOO_TOKEN", served.token)


@pytest.fixture
def people(served: Served) -> Iterator[People]:
    """The server's, from beside it."""
    registry = ZooServerSettings(folder=served.folder).open_registry()
    yield People(registry.database)
    registry.close()


def typed(*arguments: str) -> Result:
    done = CliRunner().invoke(app, ["zoo", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_an_organisation_from_its_making_to_its_last_owner(served: Served, people: People) -> None:
    people.accounts.create(LOCAL, "grace")
    made = typed("org", "create", "vision-lab", "--title", "Vision lab")
    assert (made.exit_code, "vision-lab is there" in made.stdout) == (0, True)
    assert typed("org", "create", "vision-lab").exit_code == 6
    assert typed("org", "create", "../me").exit_code == 2
    assert "writer" in typed("org", "add", "vision-lab", "grace").stdout
    assert "reader" in typed("org", "add", "vision-lab", "grace", "--role", "reader").stdout
    shown = typed("org", "members", "vision-lab")
    assert ("ada" in shown.stdout, "grace" in shown.stdout, "0 B of" in shown.stdout) == (True, True, True)
    assert typed("org", "add", "vision-lab", "nobody-here").exit_code == 6
    assert typed("org", "remove", "vision-lab", "grace").exit_code == 0
    assert "grace" not in typed("org", "members", "vision-lab").stdout
    last = typed("org", "remove", "vision-lab", "ada")
    assert (last.exit_code, "last owner" in last.stderr) == (9, True)


def test_a_token_is_shown_once_and_can_be_ended(
    served: Served, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = typed("token", "create", "cluster", "--scope", "write", "--days", "1", "--quiet")
    secret = made.stdout.strip()
    assert people.authenticate(secret).scopes == {"read", "write"}
    listed = typed("token", "list").stdout
    row = next(line for line in listed.splitlines() if "cluster" in line)
    number = next(part for part in row.split() if part.isdecimal())
    assert secret not in listed
    monkeypatch.setenv("NEURONMAP_ZOO_TOKEN", secret)
    weak = typed("token", "create", "more", "--scope", "admin")
    assert (weak.exit_code, "this needs 'admin'" in weak.stderr) == (9, True)
    monkeypatch.setenv("NEURONMAP_ZOO_TOKEN", served.token)
    assert typed("token", "revoke", number).exit_code == 0
    assert typed("token", "revoke", number).exit_code == 6
    monkeypatch.setenv("NEURONMAP_ZOO_TOKEN", secret)
    assert typed("org", "create", "too-late").exit_code == 9


def test_a_server_and_a_login_are_needed(served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = typed("token", "list", "--zoo", str(tmp_path))
    assert (folder.exit_code, "only a server has accounts" in folder.stderr) == (2, True)
    monkeypatch.setenv("NEURONMAP_OFFLINE", "1")
    assert typed("org", "members", "ada").exit_code == 10
    monkeypatch.delenv("NEURONMAP_OFFLINE")
    monkeypatch.delenv("NEURONMAP_ZOO_TOKEN")
    stranger = typed("token", "list")
    assert (stranger.exit_code, "must know who asks" in stranger.stderr) == (9, True)
