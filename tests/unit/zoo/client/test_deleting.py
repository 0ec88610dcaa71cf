"""``neuronmap zoo delete`` against a real server, as every kind of person types it; and in a folder, where nobody has an account."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.zoo.client.conftest import Served
from typer.testing import CliRunner, Result
from zoos import package

from neuronmap.cli import app
from neuronmap.progress import SilentProgress
from neuronmap.web.zoo.settings import ZooServerSettings
from neuronmap.zoo.client.zoo import Zoo
from neuronmap.zoo.people.people import People
from neuronmap.zoo.people.principal import LOCAL


@pytest.fixture(scope="module")
def token(served: Served) -> Iterator[Callable[..., str]]:
    """Gives tokens of people: stranger, reader, writer and owner, the last three of the organisation lab."""
    registry = ZooServerSettings(folder=served.folder).open_registry()
    people = People(registry.database)
    people.organisations.create(LOCAL, "lab")

    def signed_in(name: str) -> str:
        return people.sign_in_as(f"https://login.example.org {name}", name=name)

    for name in ("stranger", "reader", "writer", "owner"):
        people.accounts.create(LOCAL, name, subject=f"https://login.example.org {name}")
        if name != "stranger":
            people.organisations.set_member(LOCAL, "lab", name, name)  # type: ignore[arg-type]

    def make(name: str, *scopes: str, namespace: str | None = None) -> str:
        person = people.authenticate(signed_in(name), session=True)
        return people.tokens.issue(person, "tests", scopes or ("write", "admin"), namespace=namespace).token  # type: ignore[arg-type]

    yield make
    registry.close()


@pytest.fixture(scope="module")
def versions(served: Served, token: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """lab/numbers@1.0 and @2.0, published, and the draft lab/numbers@3.0, published by an owner."""
    folder = tmp_path_factory.mktemp("numbers")
    with Zoo(served.address, token("owner"), progress=SilentProgress()) as zoo:
        for number in (1, 2, 3):
            made = package(folder / str(number), data=bytes([number]))
            zoo.publish(made, f"lab/numbers@{number}.0", licence="MIT", draft=number == 3)
    return "lab/numbers"


def delete(reference: str, *options: str) -> Result:
    return CliRunner().invoke(app, ["zoo", "delete", reference, "--reason", "a person asked", *options], input="y\n")


@pytest.mark.parametrize(
    ("who", "scopes", "namespace", "told"),
    [
        (None, (), None, ("This needs an account", "must know who asks", "needs an account")),
        ("stranger", (), None, ("stranger may not", "Ask an owner of lab")),
        ("reader", (), None, ("reader may not", "Ask an owner of lab")),
        ("reader", ("read",), None, ("has the scopes read", "Make a token with that scope")),
        ("writer", (), None, ("writer may not", "Ask an owner of lab")),
        ("owner", ("write",), None, ("has the scopes read, write", "Make a token with that scope")),
        ("owner", (), "owner", ("alone", "for all of your namespaces, or for this one")),
    ],
)
def test_who_may_not_is_told_why(
    served: Served,
    token: Callable[..., str],
    versions: str,
    monkeypatch: pytest.MonkeyPatch,
    who: str | None,
    scopes: tuple[str, ...],
    namespace: str | None,
    told: tuple[str, ...],
) -> None:
    monkeypatch.setenv("NEURONMAP_ZOO", served.address)
    if who is not None:
        monkeypatch.setenv("NEURONMAP_ZOO_TOKEN", token(who, *scopes, namespace=namespace))
    refused, asked = delete(f"{versions}@1.0", "--yes"), delete(f"{versions}@1.0")
    for done in (refused, asked):
        assert done.exit_code == 9, done.output
        found = [words for words in told if words in " ".join(done.stderr.split())]
        assert found == list(told) if who is not None else found, done.stderr
    assert "for good?" not in asked.output, "nobody is asked whether they are sure of what they may not do"
    with Zoo(served.address, "", progress=SilentProgress()) as zoo:
        assert zoo.show(f"{versions}@1.0").state == "published"


def test_who_may(served: Served, token: Callable[..., str], versions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURONMAP_ZOO", served.address)
    for secret, label in (
        (token("writer", "write"), "3.0"),  # a draft
        (token("owner", "write", "admin", namespace="lab"), "2.0"),
        (served.token, "1.0"),  # of ada, who runs the server and does not belong to lab
    ):
        monkeypatch.setenv("NEURONMAP_ZOO_TOKEN", secret)
        done = delete(f"{versions}@{label}")
        assert (done.exit_code, "for good?" in done.output) == (0, True), done.output
        again = delete(f"{versions}@{label}")
        assert (again.exit_code, "was deleted already: a person asked" in again.stderr) == (6, True), again.output


def test_in_a_folder_nobody_needs_an_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURONMAP_ZOO", str(tmp_path / "zoo"))
    with Zoo(tmp_path / "zoo", progress=SilentProgress()) as zoo:
        zoo.publish(package(tmp_path / "data"), "somebody/numbers@1.0", licence="MIT")
    done = delete("somebody/numbers@1.0")
    assert (done.exit_code, "is deleted: a person asked" in done.stdout) == (0, True), done.output
