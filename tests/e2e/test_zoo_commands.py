"""The zoo as people type it: one publishes, another finds, locks, pulls and uses; and every way to get it wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from neuronmap import SAEModelHub
from neuronmap.hub import open_analysis

PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[tuple[str, str]]:
    """A zoo's server in a process of its own: its address, and a token of Ada's, who runs it."""
    home = tmp_path_factory.mktemp("server")
    environment = {**os.environ, "NEURONMAP_HOME": str(home)}
    zoo = [sys.executable, "-m", "neuronmap", "zoo"]
    create = [*zoo, "admin", "create-user", "ada", "--admin", "--password-stdin"]
    subprocess.run(create, env=environment, input=PASSWORD, text=True, check=True, timeout=120)
    process = subprocess.Popen(
        [*zoo, "serve", "--port", "0", "--anonymous-read"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    found = None
    while found is None:
        line = process.stdout.readline()
        assert line, "the server ended"
        found = re.search(r"http://localhost:\d+", line)
    address = found[0].replace("localhost", "127.0.0.1")
    with httpx2.Client(base_url=f"{address}/api/zoo", headers={"Origin": address}) as browser:
        browser.post("/sign-in", json={"name": "ada", "password": PASSWORD}).raise_for_status()
        made = browser.post("/tokens", json={"title": "journey", "scopes": ["read", "write", "admin"]})
        token = made.raise_for_status().json()["token"]
    yield address, token
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    process.stdout.close()


@pytest.fixture
def as_bob(tmp_path, monkeypatch) -> Callable[[], Path]:
    """Turns the page: from here on another person types, at another home."""

    def turn() -> Path:
        folder = tmp_path / "bob"
        monkeypatch.setenv("NEURONMAP_HOME", str(folder))
        return folder

    return turn


def test_one_publishes_and_another_uses_it(neuronmap, analysed, server, as_bob, tmp_path, monkeypatch):
    address, token = server
    logged_in = neuronmap("zoo", "login", address, "--json", answer=f"{token}\n").document("zoo login")
    assert logged_in["user"] == "ada"
    monkeypatch.setenv("NEURONMAP_ZOO", address)
    published = neuronmap(
        *(
            "zoo",
            "publish",
            "first",
            "--as",
            "ada/first@1.0",
            "--licence",
            "MIT",
            "--tag",
            "tiny",
            "--with-analysis",
            "newest",
        ),
        *("--author", "Ada Lovelace <0000-0002-1825-0097>", "--json"),
    )
    assert published.code == 0, published.err
    sae, features = published.document("zoo publish")["versions"]
    assert [one["digest"] for one in features["depends_on"]] == [sae["digest"]]
    rows = open_analysis(SAEModelHub().get("first")).queries.select([], limit=64).to_pandas()
    weights = SAEModelHub().load("first").W_dec.clone()

    bob = as_bob()
    hits = neuronmap("zoo", "search", "--tag", "tiny", "--model", "tiny-gpt2", "--kind", "SAE_MODEL", "--json")
    assert [hit["reference"] for hit in hits.document("zoo search")["hits"]] == ["ada/first@1.0"]
    fits = neuronmap("zoo", "compatible", "--model", "tiny-gpt2", "--layer", "2", "--json").document("zoo compatible")
    assert fits["hits"][0]["reference"] == "ada/first@1.0"
    lock = tmp_path / "neuronmap-zoo.lock"
    locked = neuronmap("zoo", "lock", "ada/first-features", "--with-dependencies", "--file", lock, "--json")
    assert [one["reference"] for one in locked.document("zoo lock")["artefacts"]] == [
        "ada/first@1.0",
        "ada/first-features@1.0",
    ]
    pulled = neuronmap("zoo", "pull", "--lock", lock, "--into-library", "--json")
    assert pulled.code == 0, pulled.err
    assert [one["library"] for one in pulled.document("zoo pull")["pulled"]] == ["ada/first", "ada/first"]
    entry = SAEModelHub().get("ada/first")
    assert entry.path.is_relative_to(bob)
    assert SAEModelHub().load("ada/first").W_dec.equal(weights)
    assert SAEModelHub().info("ada/first").origin["reference"] == "ada/first@1.0"
    assert "tiny" in entry.tags
    assert open_analysis(entry, verify=True).queries.select([], limit=64).to_pandas().equals(rows)

    again = neuronmap("zoo", "pull", "ada/first@1.0", "--offline", "--to", tmp_path / "offline", "--json")
    assert again.document("zoo pull")["pulled"][0]["fetched_bytes"] == 0
    assert neuronmap("zoo", "verify", tmp_path / "offline").code == 0
    stranger = neuronmap("zoo", "publish", "ada/first", "--as", "ada/first@9.0", "--licence", "MIT", "--json")
    assert (stranger.code, stranger.document("error")["error"]) == (9, "unauthorized")


def test_versions_come_and_go(neuronmap, analysed, server, as_bob, tmp_path, monkeypatch):
    address, token = server
    monkeypatch.setenv("NEURONMAP_ZOO", address)
    monkeypatch.setenv("NEURONMAP_ZOO_TOKEN", token)
    for name, version in (("first", "1.0"), ("second", "1.1")):
        done = neuronmap("zoo", "publish", name, "--as", f"ada/story@{version}", "--licence", "MIT")
        assert done.code == 0, done.err
    reason = ("--reason", "trained too short")
    neuronmap("zoo", "alias", "ada/story@1.0", "production", "--expected", "")
    old = neuronmap("zoo", "deprecate", "ada/story@1.0", *reason, "--successor", "1.1", "--json").document(
        "zoo deprecate"
    )
    assert old["version"]["successor"] == "ada/story@1.1"
    late = neuronmap("zoo", "alias", "ada/story@1.1", "production", "--expected", "", "--json")
    assert (late.code, late.document("error")["error"]) == (5, "mismatch")
    moved = neuronmap("zoo", "alias", "ada/story@1.1", "production", "--expected", "1.0", "--log", "--json")
    assert [one["after"] for one in moved.document("zoo alias")["log"]] == ["1.1", "1.0"]

    as_bob()
    monkeypatch.delenv("NEURONMAP_ZOO_TOKEN")
    warned = neuronmap("zoo", "pull", "ada/story@1.0", "--to", tmp_path / "old")
    assert "trained too short" in warned.err
    assert "ada/story@1.1" in warned.err
    found = neuronmap("zoo", "search", "--namespace", "ada", "--sort", "newest", "--json").document("zoo search")
    assert "ada/story@1.1" in [hit["reference"] for hit in found["hits"]]

    monkeypatch.setenv("NEURONMAP_ZOO_TOKEN", token)
    assert neuronmap("zoo", "yank", "ada/story@1.1", "--reason", "wrong threshold").code == 0
    monkeypatch.delenv("NEURONMAP_ZOO_TOKEN")
    latest = neuronmap("zoo", "pull", "ada/story", "--to", tmp_path / "latest", "--json").document("zoo pull")
    assert latest["pulled"][0]["reference"] == "ada/story@1.0"
    assert neuronmap("zoo", "pull", "ada/story@production", "--to", tmp_path / "never").code == 6
    exact = neuronmap("zoo", "pull", "ada/story@1.1", "--to", tmp_path / "exact", "--json").document("zoo pull")
    assert exact["pulled"][0]["state"] == "yanked"
    assert "wrong threshold" in exact["pulled"][0]["warnings"][0]
    listed = neuronmap("zoo", "versions", "ada/story", "--json").document("zoo versions")["artefact"]
    assert [(one["label"], one["state"]) for one in listed["versions"]] == [("1.1", "yanked"), ("1.0", "deprecated")]
    assert "wrong threshold" in neuronmap("zoo", "versions", "ada/story").out


def test_a_zoo_in_a_folder_needs_no_server(neuronmap, analysed, tmp_path):
    """Every command of the zoo, on a shared folder."""
    zoo = ("--zoo", tmp_path / "team")
    assert neuronmap("zoo", "init", *zoo, "--json").document("zoo init")["upstream"] is None
    assert neuronmap("zoo", "whoami", *zoo, "--json").document("zoo whoami")["me"]["name"] == "local"
    draft = neuronmap("zoo", "publish", "first", "--as", "ada/first@1.0", "--licence", "MIT", "--draft", *zoo, "--json")
    assert draft.document("zoo publish")["versions"][0]["state"] == "draft"
    assert neuronmap("zoo", "search", *zoo, "--json").document("zoo search")["hits"] == []
    assert (
        neuronmap("zoo", "release", "ada/first@1.0", *zoo, "--json").document("zoo release")["version"]["state"]
        == "published"
    )
    more = neuronmap(
        "zoo", "publish", "first", "--analysis", "newest", "--as", "ada/features@1.0", "--licence", "MIT", *zoo
    )
    assert more.code == 0, more.err
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"feature": 1, "label": "winter"}\n')
    options = ("--labels", "--method", "people", "--of", "first", "--as", "ada/labels@1.0", "--licence", "CC0-1.0")
    assert neuronmap("zoo", "publish", labels, *options, *zoo).code == 0
    shown = neuronmap("zoo", "show", "ada/first", "--card", *zoo)
    assert "sae_weights.safetensors" in shown.out
    assert "Architecture" in shown.out
    assert neuronmap("zoo", "show", "ada/first", *zoo, "--json").document("zoo show")["version"]["used_by"] == 2
    picture = tmp_path / "lineage.svg"
    drawn = neuronmap("zoo", "lineage", "ada/labels", "--svg", picture, *zoo)
    assert "sae: ada/first@1.0" in drawn.out
    assert picture.read_text().startswith("<svg")
    assert neuronmap("zoo", "lineage", "ada/first", *zoo, "--json").document("zoo lineage")["svg"] is None
    in_use = neuronmap("zoo", "delete", "ada/first@1.0", "--reason", "x", "--yes", *zoo, "--json")
    assert (in_use.code, in_use.document("error")["error"]) == (6, "already_exists")
    assert neuronmap("zoo", "delete", "ada/labels@1.0", "--reason", "x", *zoo, "--json").code == 2
    nobody_asks = neuronmap("zoo", "delete", "ada/first@1.0", "--reason", "x", *zoo, answer="y\n")
    assert nobody_asks.code == 6
    assert "for good?" not in nobody_asks.out + nobody_asks.err
    gone = neuronmap("zoo", "delete", "ada/labels@1.0", "--reason", "test", "--yes", *zoo, "--json").document(
        "zoo delete"
    )
    assert gone["version"]["state"] == "deleted"
    assert neuronmap("zoo", "gc", *zoo, "--json").document("zoo gc")["collected"]["dry_run"] is True
    removed = neuronmap("zoo", "gc", "--delete", "--grace", "0", *zoo, "--json").document("zoo gc")
    assert removed["collected"]["blobs"] == 1
    assert neuronmap("zoo", "verify", *zoo, "--json").document("zoo verify")["store"]["damaged"] == []
    assert (
        neuronmap("zoo", "verify", "ada/first", *zoo, "--json").document("zoo verify")["reference"] == "ada/first@1.0"
    )
    copied = neuronmap("zoo", "mirror", tmp_path / "team", "ada/features", "--zoo", tmp_path / "copy", "--json")
    assert [one["reference"] for one in copied.document("zoo mirror")["versions"]] == [
        "ada/first@1.0",
        "ada/features@1.0",
    ]
    weights = next(
        path for path in (tmp_path / "team/blobs").rglob("*") if path.is_file() and path.stat().st_size > 10_000
    )
    weights.chmod(0o600)
    weights.write_bytes(b"!" + weights.read_bytes()[1:])
    assert neuronmap("zoo", "verify", *zoo).code == 5


def test_training_ends_in_the_zoo(neuronmap, train_arguments, home):
    refused = neuronmap(*train_arguments, "--publish", "ada/trained@1.0", "--json")
    assert (refused.code, refused.document("error")["error"]) == (2, "config"), "before hours of training"
    assert neuronmap(*train_arguments, "--publish", "ada/trained", "--licence", "MIT").code == 2
    assert not list(home.glob("runs/*"))
    assert neuronmap(*train_arguments, "--tag", "x", "--json").document("error")["error"] == "config", (
        "without --publish"
    )
    how = ("--licence", "mit", "--tag", "tiny", "--author", "Ada Lovelace", "--title", "Mine")
    options = ("--no-evaluate", "--name", "mine", "--publish", "ada/trained@1.0", *how, "--json")
    trained = neuronmap(*train_arguments, *options)
    assert trained.code == 0, trained.err
    assert trained.document("sae train")["published"] == "ada/trained@1.0"
    assert (
        neuronmap("zoo", "show", "ada/trained", "--json").document("zoo show")["version"]["manifest"]["licence"]
        == "MIT"
    )
    again = neuronmap("zoo", "publish", "mine", "--as", "ada/trained@1.0", *how, "--json")
    assert again.code == 0, again.out
    assert again.document("zoo publish")["versions"][0]["manifest"]["title"] == "Mine"


def test_what_goes_wrong(neuronmap, analysed, tmp_path, monkeypatch):
    zoo = ("--zoo", tmp_path / "team")
    for reading in (("search",), ("verify",), ("show", "ada/first"), ("whoami",), ("pull", "ada/first")):
        mistyped = neuronmap("zoo", *reading, *zoo, "--json")
        assert (mistyped.code, mistyped.document("error")["error"]) == (6, "not_in_zoo"), reading
        assert "There is no zoo in" in mistyped.document("error")["message"]
    assert not (tmp_path / "team").exists()  # looking makes no zoo
    assert neuronmap("zoo", "init", *zoo).code == 0
    for arguments, code in (
        (("show", "ada/nothing"), 6),
        (("show", "no-slash"), 2),
        (("publish", "nothing", "--as", "ada/x@1.0", "--licence", "MIT"), 6),
        (("publish", "first", "--as", "ada/x", "--licence", "MIT"), 2),
        (("publish", "first", "--as", "ada/x@1.0", "--licence", "my own"), 2),
        (("publish", "first", "--as", "ada/x@1.0", "--licence", "MIT", "--depends-on", "base"), 2),
        (("pull",), 2),
        (("pull", "ada/nothing"), 6),
        (("search", "--where", "l0 is small"), 2),
        (("compatible",), 2),
        (("alias", "ada/nothing"), 2),
    ):
        failed = neuronmap("zoo", *arguments, *zoo, "--json")
        assert failed.code == code, (arguments, failed.out)
        failed.document("error")
    monkeypatch.setenv("NEURONMAP_ZOO", "http://127.0.0.1:9")
    monkeypatch.setattr("neuronmap.zoo.client.http._TRIES", 1)
    offline = neuronmap("zoo", "show", "ada/first", "--json")
    assert (offline.code, offline.document("error")["error"]) == (10, "zoo_offline")
    assert neuronmap("zoo", "login", tmp_path, answer="x\n").code == 2
    every = neuronmap(
        *(
            "zoo",
            "publish",
            "first",
            "--as",
            "ada/x@not_a_version",
            "--licence",
            "my own",
            "--tag",
            "UP",
            *zoo,
            "--json",
        )
    ).document("error")
    for said in ("'not_a_version' cannot be a version", "'my own' is no SPDX licence", "'UP' cannot be a tag"):
        assert said in every["message"]


def test_servers_are_not_asked_offline_and_verify_themselves(neuronmap, analysed, server, monkeypatch):
    address, token = server
    monkeypatch.setenv("NEURONMAP_ZOO", address)
    assert neuronmap("zoo", "verify", "--json").code == 9
    monkeypatch.setenv("NEURONMAP_ZOO_TOKEN", token)
    published = neuronmap("zoo", "publish", "first", "--as", "ada/quiet@1.0", "--licence", "MIT", "--quiet")
    assert published.code == 0, published.err
    assert "Paths of this machine are published by their last part" in published.err
    store = neuronmap("zoo", "verify", "--limit", "3", "--json").document("zoo verify")["store"]
    assert store["damaged"] == []
    assert 1 <= store["checked"] <= 3
    monkeypatch.setenv("NEURONMAP_OFFLINE", "1")
    for asking in (("search",), ("show", "ada/quiet"), ("whoami",), ("versions", "ada/quiet")):
        refused = neuronmap("zoo", *asking, "--json")
        assert (refused.code, refused.document("error")["error"]) == (10, "zoo_offline"), asking


def test_schemas_are_printed(neuronmap):
    manifest = json.loads(neuronmap("zoo", "schema").out)
    assert "licence" in manifest["properties"]
    assert "nodes" in json.loads(neuronmap("zoo", "schema", "circuit").out)["properties"]
    assert neuronmap("zoo", "schema", "nonsense").code == 2
    document = neuronmap("zoo", "schema", "circuit", "--json").document("zoo schema")
    assert (document["name"], "nodes" in document["json_schema"]["properties"]) == ("CIRCUIT", True)


def test_pulling_into_the_library_keeps_other_saes(neuronmap, analysed, tmp_path):
    zoo = ("--zoo", tmp_path / "team")
    for name, version in (("first", "1.0"), ("second", "2.0")):
        assert neuronmap("zoo", "publish", name, "--as", f"ada/sae@{version}", "--licence", "MIT", *zoo).code == 0
    assert neuronmap("zoo", "pull", "ada/sae@1.0", "--into-library", *zoo).code == 0
    assert neuronmap("zoo", "pull", "ada/sae@1.0", "--into-library", *zoo).code == 0, "the same again is no conflict"
    taken = neuronmap("zoo", "pull", "ada/sae@2.0", "--into-library", *zoo, "--json")
    assert (taken.code, taken.document("error")["error"]) == (6, "already_exists")
    assert neuronmap("zoo", "pull", "ada/sae@2.0", "--into-library", "--name", "ada/newer", *zoo).code == 0
    assert neuronmap("zoo", "pull", "ada/sae@2.0", "--into-library", "--replace", *zoo).code == 0
    hub = SAEModelHub()
    assert hub.get("ada/sae").weights_digest == hub.get("second").weights_digest
    shutil.rmtree(tmp_path / "team")
    assert hub.verify("ada/sae")
