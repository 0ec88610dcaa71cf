"""``neuronmap zoo org`` and ``neuronmap zoo token`` against a real server: who gets in, and with what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.zoo.client.conftest import Served
from typer.testing import CliRunner, Result

from neuronmap.cli import app
from neuronmap.cli.documents import DOCUMENTS
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


def document(*arguments: str) -> dict[str, Any]:
    """What a command prints with ``--json``: one document of the documented shape, and nothing else on stdout."""
    done = typed(*arguments, "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    DOCUMENTS[f"zoo {arguments[0]} {arguments[1]}" if done.exit_code == 0 else "error"].model_validate(found)
    return found


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


def test_every_answer_about_people_as_json(served: Served, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    people.accounts.create(LOCAL, "joan")
    made = document("org", "create", "json-lab", "--title", "A lab")
    assert (made["schema"], made["zoo"]) == ("neuronmap/zoo.org.create/1", served.address)
    assert (made["namespace"]["title"], made["namespace"]["role"]) == ("A lab", "owner")
    both = [{"user": "ada", "role": "owner"}, {"user": "joan", "role": "reader"}]
    assert document("org", "add", "json-lab", "joan", "--role", "reader")["namespace"]["members"] == both
    assert document("org", "members", "json-lab")["namespace"]["members"] == both
    gone = document("org", "remove", "json-lab", "joan")
    assert (gone["namespace"], gone["user"]) == ("json-lab", "joan")
    assert document("org", "create", "json-lab")["error"] == "already_exists"

    done = typed("token", "create", "robot", "--scope", "write", "--namespace", "json-lab", "--json")
    created = json.loads(done.stdout)
    DOCUMENTS["zoo token create"].model_validate(created)
    token = created["token"]
    secret = token["token"]
    assert (done.stdout.count(secret), secret in done.stderr) == (1, False)
    assert people.authenticate(secret).scopes == {"read", "write"}
    listed = document("token", "list")
    assert secret not in json.dumps(listed)
    assert next(one for one in listed["tokens"] if one["id"] == token["id"])["namespace"] == "json-lab"
    assert document("token", "revoke", str(token["id"]))["number"] == token["id"]
    assert document("token", "revoke", str(token["id"]))["error"] == "not_in_zoo"


def test_who_does_not_belong_sees_no_members(served: Served, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    people.accounts.create(LOCAL, "mary", subject="https://login.example.org mary")
    mary = people.authenticate(people.sign_in_as("https://login.example.org mary", name="mary"), session=True)
    monkeypatch.setenv("NEURONMAP_ZOO_TOKEN", people.tokens.issue(mary, "tests", ["read"]).token)
    assert document("org", "members", "ada")["namespace"]["members"] is None
    assert "those alone who belong to it" in typed("org", "members", "ada").stdout
