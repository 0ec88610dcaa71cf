"""Features of a published analysis, looked at in place: the explorer's pages with the store's facts, for whom the version is visible."""

from __future__ import annotations

import csv
import html
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from tests.unit.web.zoo.conftest import Browser, Served
from tests.unit.web.zoo.test_pages import put, sae
from tests.unit.zoo.reading.test_placing import Bucket

from neuronmap.database import Database, database_url
from neuronmap.errors import NotInZooError
from neuronmap.features.storage.manifest import read_manifest, write_manifest
from neuronmap.features.storage.store import FeatureStore
from neuronmap.web.app import create_app
from neuronmap.web.settings import ServerSettings
from neuronmap.web.zoo.context import ZooContext
from neuronmap.web.zoo.looking import Looking
from neuronmap.web.zoo.server import create_zoo_app
from neuronmap.zoo.database import ZOO
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.principal import LOCAL
from neuronmap.zoo.registry.registry import Registry
from neuronmap.zoo.views import VersionView

sys.path.append(os.fspath(Path(__file__).parents[2] / "features"))

from made_stores import HOSTILE_LABEL, hostile_store, small_store, small_tables, table

RECORD = {"analysis": "features", "format": "neuronmap-features", "model": {"name": "tiny"}}


def publish(
    registry: Registry, folder: Path, name: str, parent: VersionView, *, version: str = "1.0", **more: Any
) -> VersionView:
    """The files of a folder as an analysis of an SAE, whatever they are."""
    contents = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "verified.json"}
    needs = [{"digest": parent.digest, "role": "sae"}]
    values = {"kind": "ANALYSIS_RESULT", "name": name, "version": version, "record": RECORD, "depends_on": needs}
    return put(registry, {**values, **more}, contents)


@pytest.fixture(scope="module")
def real(small_home: Path) -> Path:
    """The analysis that the command line made."""
    return next(one for one in (small_home / "library/first/analyses").iterdir() if not one.name.startswith("."))


@pytest.fixture(scope="module")
def parents() -> dict[int, VersionView]:
    """The SAE of each registry."""
    return {}


@pytest.fixture(scope="module")
def shared(
    serving: Callable[..., Served],
    tmp_path_factory: pytest.TempPathFactory,
    real: Path,
    parents: dict[int, VersionView],
) -> Served:
    """A server on which everybody may read what is public: ``real``, ``small`` and ``markup`` of ada's."""
    made = serving(anonymous_read=True)
    registry, folder = made.context.registry, tmp_path_factory.mktemp("stores")
    parents[id(registry)] = parent = sae(registry, "first", "1.0")
    publish(registry, real, "real", parent)
    publish(registry, small_store(folder / "small"), "small", parent)
    publish(registry, hostile_store(folder / "markup"), "markup", parent)
    return made


@pytest.fixture
def look(shared: Served) -> Browser:
    """Nobody in particular, with a browser."""
    browser = shared.browser()
    browser.headers["accept"] = "text/html"
    return browser


def page(browser: TestClient, address: str, status: int = 200) -> str:
    answer = browser.get(address)
    assert answer.status_code == status, answer.text
    return answer.text


def links(text: str) -> list[str]:
    return [html.unescape(found) for found in re.findall(r'href="([^"]+)"', text)]


# --- the same facts ---------------------------------------------------------------------------------------------------------


def test_the_table_has_the_facts_of_the_store(look: Browser, real: Path) -> None:
    with FeatureStore.open(real) as store:
        found = look.get("/zoo/ada/real/1.0/features.json", params={"sort": "-max", "limit": 20}).json()
        rows = list(store.queries.select(sort="-max", limit=20))
        assert found["features"] == [row["feature"] for row in rows]
        names = [head["name"] for head in found["heads"]]
        for cells, row in zip(found["rows"], rows, strict=True):
            assert [cell["value"] for cell in cells] == pytest.approx([row[name] for name in names], nan_ok=True)
        assert found["paging"]["matching"] == store.num_features == 64
        text = page(look, "/zoo/ada/real/1.0/features?sort=-max&limit=20")
        assert "Features of ada/real@1.0" in text
        assert f"/zoo/ada/real/1.0/features/{rows[0]['feature']}" in links(text)
        second = look.get(found["paging"]["next"].replace("/features?", "/features.json?")).json()
        assert second["features"] == store.queries.select(sort="-max").features[20:40]


def test_a_feature_has_the_facts_of_the_store(look: Browser, real: Path) -> None:
    with FeatureStore.open(real) as store:
        feature = store.queries.select("status=alive", sort="-max", limit=1).features[0]
        record, examples = store.feature(feature), store.examples(feature, "top")
        found = look.get(f"/zoo/ada/real/1.0/features/{feature}.json").json()
        assert found["row"]["max"] == record.row["max"]
        assert found["label"]["label"] == record.label
        assert sum(found["histogram"]["counts"]) == sum(record.details["histogram"]) == record.row["firings"]
        assert [one["token"] for one in found["promoted"]] == [one["token"] for one in record.details["promoted"]]
        near = [one["feature"] for one in record.details["neighbours"]]
        assert [one["feature"] for one in found["relations"]["neighbours"]] == near
        shown = [one for group in found["examples"]["groups"] for one in group["examples"]]
        assert [one["activation"] for one in shown] == [one.activation for one in examples[: len(shown)]]
        assert ["".join(piece["text"] for piece in one["pieces"]) for one in shown] == [
            one.text for one in examples[: len(shown)]
        ]
        text = page(look, f"/zoo/ada/real/1.0/features/{feature}")
        assert 'class="t a20 peak"' in text
        assert f"/zoo/ada/real/1.0/features/{near[0]}" in links(text)


def test_nothing_leads_to_what_is_not_here(look: Browser, real: Path) -> None:
    """No model, no weights, no library: nothing to steer, measure, compare or test, and no link into the explorer."""
    with FeatureStore.open(real) as store:
        feature = store.queries.random_alive(0)
    for address in ("features", f"features/{feature}", "cards"):
        text = page(look, f"/zoo/ada/real/1.0/{address}")
        for link in links(text):
            path = link.partition("?")[0].partition("#")[0]
            assert not path.startswith(("/sae", "/text", "/search", "/steer")), link
            if path.startswith("/zoo") and "random" not in path:
                assert look.get(link).status_code == 200, link
        assert "data-compare" not in text
        assert "data-scatter" not in text
        assert "hx-post" not in text
        for action in re.findall(r'<form[^>]* action="([^"]+)"', text):
            assert action.startswith("/zoo/ada/real/1.0/")


def test_conditions_narrow_down(look: Browser) -> None:
    found = look.get("/zoo/ada/small/1.0/features.json", params={"where": "status=alive", "label": "berlin"}).json()
    assert found["features"] == [0, 6]
    assert look.get("/zoo/ada/small/1.0/features.json", params={"fires_on": " the"}).json()["features"] == [1, 4]
    assert look.get("/zoo/ada/small/1.0/features.json", params={"promotes": "The"}).json()["features"] == [6]
    assert "no column" in page(look, "/zoo/ada/small/1.0/features?where=nothing>1", 422).lower()
    assert look.get("/zoo/ada/small/1.0/features.json", params={"sort": "nothing"}).status_code == 422


def test_files_of_the_table_and_of_plots(look: Browser) -> None:
    rows = list(csv.DictReader(io.StringIO(page(look, "/zoo/ada/small/1.0/features.csv"))))
    assert [row["label"] for row in rows][:2] == ["Berlin", "the"]
    assert len(page(look, "/zoo/ada/small/1.0/features.jsonl").splitlines()) == 8
    plot = page(look, "/zoo/ada/markup/1.0/features/0/plot/histogram.csv")
    assert sum(int(row["firings"]) for row in csv.DictReader(io.StringIO(plot))) == 10
    assert look.get("/zoo/ada/markup/1.0/features/0/plot/none.csv").status_code == 404


def test_cards_and_the_ways_between_features(look: Browser) -> None:
    assert "/zoo/ada/small/1.0/features/6" in links(page(look, "/zoo/ada/small/1.0/cards?sort=-max"))
    assert "/zoo/ada/small/1.0/features/6" in links(page(look, "/zoo/ada/small/1.0/cards-more?after=5"))
    assert look.get("/zoo/ada/small/1.0/features/go", params={"number": " #7"}).headers["location"].endswith("/7")
    drawn = look.get("/zoo/ada/small/1.0/features/random")
    assert drawn.headers["cache-control"] == "no-store"
    assert drawn.headers["location"].rpartition("/")[2] in ("0", "1", "4", "6", "7")
    missing = page(look, "/zoo/ada/small/1.0/features/900", 404)
    assert "has the features" in missing
    assert look.get("/zoo/ada/small/1.0/features/900.json").json()["error"]["code"] == "not_found"


def test_the_artefacts_pages_lead_to_it(look: Browser) -> None:
    assert "/zoo/ada/small/1.0/features" in links(page(look, "/zoo/ada/small"))
    of_sae = look.get("/zoo/ada/first.json").json()
    assert {one["features"] for one in of_sae["analyses"]} >= {
        f"/zoo/ada/{name}/1.0/features" for name in ("real", "small")
    }
    assert of_sae["features"] == ""
    assert "/zoo/ada/small/1.0/features" in links(page(look, "/zoo/ada/first"))
    assert "/zoo/ada/first/1.0" in links(page(look, "/zoo/ada/small/1.0/features/0"))  # the SAE that the numbers are of


def test_the_explorer_of_this_machine_has_the_same_pages(real: Path, home: Path) -> None:
    registry = Registry.embedded()
    publish(registry, real, "real", sae(registry, "first", "1.0"))
    registry.close()
    with TestClient(create_app(ServerSettings(supervise=False)), base_url="http://localhost") as explorer:
        explorer.headers["accept"] = "text/html"
        assert "Features of ada/real@1.0" in page(explorer, "/zoo/ada/real/latest/features")
        assert "/zoo/ada/real/1.0/features/3" in links(page(explorer, "/zoo/ada/real/1.0/features"))
        assert explorer.get("/zoo/ada/real/1.0/features/3.json").json()["feature"] == 3
    assert not any(one.is_file() and not one.is_symlink() for one in (home / "cache").rglob("*"))  # nothing is copied


# --- who may look -----------------------------------------------------------------------------------------------------------

ADDRESSES = ("features", "features.json", "features.csv", "features.jsonl", "features/0", "features/0.json", "cards", "cards.json",
    "cards-more", "features/random", "features/go", "features/0/plot/histogram.csv")  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_strangers_do_not_find_what_is_private_even_when_others_have_it_open(
    shared: Served, parents: dict[int, VersionView], tmp_path: Path, address: str
) -> None:
    registry = shared.context.registry
    try:
        registry.artefact(LOCAL, "ada", "secret")
    except NotInZooError:
        publish(registry, small_store(tmp_path / "secret"), "secret", parents[id(registry)])
        registry.changing.set_private(LOCAL, "ada", "secret", True)
    path = f"/zoo/ada/secret/1.0/{address}"
    assert shared.browser("ada").get(path).status_code in (200, 303)
    for name in (None, "eve"):
        answer = shared.browser(name).get(path)
        assert answer.status_code == 404
        assert "Berlin" not in answer.text


def test_a_zoo_that_lets_nobody_read_asks_who_it_is(zoo: Served, tmp_path: Path) -> None:
    registry = zoo.context.registry
    publish(registry, small_store(tmp_path / "small"), "small", sae(registry, "first", "1.0"))
    for address in ADDRESSES:
        assert zoo.browser().get(f"/zoo/ada/small/1.0/{address}").status_code == 401
        assert zoo.browser("eve", "read").get(f"/zoo/ada/small/1.0/{address}").status_code in (200, 303)


def test_yanked_drafts_and_deleted_versions_are_as_their_pages_are(
    shared: Served, parents: dict[int, VersionView], tmp_path: Path, look: Browser
) -> None:
    registry, parent = shared.context.registry, parents[id(shared.context.registry)]
    folder = small_store(tmp_path / "moving", overview={"moving": 1})
    version = publish(registry, folder, "moving", parent)
    for address in ("1.0", "latest", version.digest):
        assert page(look, f"/zoo/ada/moving/{address}/features")
    opened = shared.context.looking._opened[version.digest].store
    registry.changing.yank(LOCAL, Reference.parse("ada/moving@1.0"), "wrong")
    assert page(look, "/zoo/ada/moving/1.0/features")
    page(look, "/zoo/ada/moving/latest/features", 404)
    place = shared.context.looking.reading.folder(version.digest)
    assert place.exists()
    done = shared.browser("ada").request(
        "DELETE", "/api/zoo/artefacts/ada/moving/versions/1.0", params={"reason": "A person asked for it."}
    )
    assert done.status_code == 200
    assert not place.exists()
    assert opened.tables._open == {}
    for address in ("1.0", version.digest):
        for below in ADDRESSES:
            answer = look.get(f"/zoo/ada/moving/{address}/{below}")
            assert answer.status_code == 404
            assert "Berlin" not in answer.text
    assert "A person asked for it" in page(look, "/zoo/ada/moving/1.0/features", 404)


def test_what_holds_no_features_says_so(look: Browser) -> None:
    assert "holds no feature store" in page(look, "/zoo/ada/first/1.0/features", 409)
    for address in ("/zoo/ada/none/1.0/features", "/zoo/ada/small/9.9/features", "/zoo/A/B/C/features"):
        page(look, address, 404)


# --- strangers' stores --------------------------------------------------------------------------------------------------------


def test_markup_stays_text(look: Browser) -> None:
    for address in (
        "features",
        "cards",
        "features/0",
        "features/0?ctx=full",
        "features/0?tab=quantile",
        "features/2",
        "features/9",
    ):
        text = look.get(f"/zoo/ada/markup/1.0/{address}").text
        assert HOSTILE_LABEL not in text
        assert "<img" not in text
        assert "onclick='" not in text
        assert "</script><b>" not in text
    assert html.escape(HOSTILE_LABEL, quote=True).replace("&#x27;", "'").replace("&quot;", "&#34;") in page(
        look, "/zoo/ada/markup/1.0/features/0"
    )


def _with(folder: Path, name: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Write a table of the store again with changed rows; the manifest is sealed again."""
    rows = small_tables()[name].to_pylist()
    change(rows)
    pq.write_table(table(name, rows), folder / f"{name}.parquet")
    write_manifest(folder, read_manifest(folder), [f"{name}.parquet"])


def _bytes(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    write_manifest(folder, read_manifest(folder), [name])


def _npy(folder: Path, name: str, values: Any) -> None:
    np.save(folder / name, values)
    write_manifest(folder, read_manifest(folder), [name])


def _each(**values: Any) -> Callable[[list[dict[str, Any]]], None]:
    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row.update(values)

    return change


def _columns(folder: Path) -> None:
    pq.write_table(pa.table({"feature": pa.array(range(8), pa.int32())}), folder / "features.parquet")
    write_manifest(folder, read_manifest(folder), ["features.parquet"])


def _manifest(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        write_manifest(folder, {**read_manifest(folder), **values}, [])

    return change


DAMAGE: dict[str, Callable[[Path], None]] = {
    "no-parquet-inside": lambda folder: _bytes(folder, "features.parquet", b"PAR1" + bytes(40) + b"\x10\x00\x00\x00PAR1"),
    "cut-in-the-middle": lambda folder: _bytes(
        folder, "details.parquet", b"PAR1" + (folder / "details.parquet").read_bytes()[200:]
    ),
    "other-columns": _columns,
    "numbers-of-features": lambda folder: _with(folder, "features", _each(feature=10**9)),
    "hints-of-others": lambda folder: _with(folder, "hints", _each(feature=2**31 - 1)),
    "hints-below": lambda folder: _with(folder, "hints", _each(feature=-5)),
    "tokens-beyond": lambda folder: _with(
        folder, "details", _each(tokens=[{"token": 2**31 - 1, "count": 1, "share": 1.0, "lift": 1.0, "z": 1.0}])
    ),
    "neighbours-beyond": lambda folder: _with(folder, "details", _each(neighbours=[{"feature": -7, "cosine": 2.0}])),
    "empty-lists": lambda folder: _with(folder, "details", _each(tokens=[{}], neighbours=[{}], promoted=[{}], coactive=[{}])),
    "long-histogram": lambda folder: _with(folder, "details", _each(histogram=[1] * 5000)),
    "places-beyond": lambda folder: _with(folder, "examples", _each(sequence=2**32 - 1, position=65_535)),
    "offsets-beyond": lambda folder: _with(folder, "examples", _each(offsets=[127] * 9, activations=[1.0] * 3)),
    "not-a-number": lambda folder: _with(
        folder, "features", _each(max=float("nan"), density=float("inf"), firings=-(2**63), status="")
    ),
    "nothing": lambda folder: _with(folder, "features", _each(status=None, max=None, density=None, firings=None)),
    "long-texts": lambda folder: _with(folder, "hints", _each(label="<b>" * 40_000, rule="\x00\u202e" * 9000)),
    "documents-beyond": lambda folder: _with(folder, "documents", _each(sequence=2**32 - 1, position=65_535, id="../../x")),
    "vocabulary-of-nothing": lambda folder: _with(folder, "vocabulary", _each(bytes=None, text=None, special=None)),
    "tokens-of-another-shape": lambda folder: _npy(folder, "tokens.npy", np.zeros((2, 2), "<u2")),
    "tokens-beyond-the-vocabulary": lambda folder: _npy(folder, "tokens.npy", np.full((6, 10), 65_535, "<u2")),
    "tokens-are-objects": lambda folder: _npy(folder, "tokens.npy", np.array([{"a": 1}], object)),
    "facts-are-lists": _manifest(facts={"sae": [1], "model": "x", "corpus": 7, "hook": []}),
    "overview-is-odd": _manifest(overview={"explained_variance": [1]}),
    "created-is-markup": _manifest(created="<script>alert(1)</script>"),
    "huge-counts": _manifest(features=10**18),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_store_is_a_clean_error_or_a_page(
    shared: Served, parents: dict[int, VersionView], tmp_path: Path, look: Browser, name: str
) -> None:
    registry = shared.context.registry
    folder = small_store(tmp_path / "store")
    DAMAGE[name](folder)
    publish(registry, folder, f"damaged-{name}", parents[id(registry)])
    seen = set()
    for address in (
        *ADDRESSES,
        "features/1",
        "features/0?tab=bin&ctx=full",
        "features?sort=-max&after=3",
        "features?fires_on=a",
    ):
        answer = look.get(f"/zoo/ada/damaged-{name}/1.0/{address}")
        assert answer.status_code in (200, 303, 404, 409, 422), (address, answer.text)
        assert str(tmp_path.parent.parent) not in answer.text, address  # no path of the server
        assert "json" in answer.headers.get("content-type", "") or "<script>alert" not in answer.text
        seen.add(answer.status_code)
        if answer.status_code == 409:
            assert f"ada/damaged-{name}@1.0" in answer.text
    if name not in ("not-a-number", "long-texts", "created-is-markup", "documents-beyond", "nothing", "long-histogram"):
        assert 409 in seen or 422 in seen


# --- how stores are held -----------------------------------------------------------------------------------------------------


def test_a_few_stores_are_open_and_none_is_closed_while_it_is_read(
    shared: Served, parents: dict[int, VersionView], tmp_path: Path
) -> None:
    registry = shared.context.registry
    versions = [
        publish(
            registry,
            small_store(tmp_path / f"{number}", overview={"n": number}),
            f"open-{number}",
            parents[id(registry)],
        )
        for number in range(3)
    ]
    looking = Looking(lambda: shared.context.looking.reading, most=1)
    with looking.at(versions[0]) as first:
        assert first.store.feature(0).row["max"] == 4.0
        with looking.at(versions[1]):
            pass
        assert first.store.feature(1).row["max"] == 9.0  # dropped, but still read
        assert list(looking._opened) == [versions[1].digest]
        assert first.store.tables._open
    assert first.store.tables._open == {}
    with looking.at(versions[1]) as second, looking.at(versions[1]) as again:
        assert second is again
        looking.close()
        assert second.store.queries.count("status=alive") == 4
        connection = second.store.queries._connection
    import duckdb

    with pytest.raises(duckdb.ConnectionException):
        connection.execute("SELECT 1")
    with looking.at(versions[2]) as third:
        looking.forget(versions[2].digest)
        assert third.store.feature(0).row["max"] == 4.0
    looking.forget(Digest.of(b"never seen"))


def test_no_torch_is_loaded(shared: Served) -> None:
    code = """
import sys
from fastapi.testclient import TestClient
from neuronmap.web.zoo.server import create_zoo_app
from neuronmap.web.zoo.settings import ZooServerSettings
app = create_zoo_app(ZooServerSettings(folder=sys.argv[1], anonymous_read=True))
browser = TestClient(app, base_url="http://localhost", headers={"accept": "text/html"})
for address in ("features", "cards", "features/0", "features?fires_on=a", "features/0?tab=random"):
    assert browser.get(f"/zoo/ada/small/1.0/{address}").status_code == 200
assert "torch" not in sys.modules
assert "transformers" not in sys.modules
"""
    folder = str(shared.settings.folder)
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_of_a_bucket_only_what_pages_read_is_fetched_once_and_within_a_bound(tmp_path: Path) -> None:
    store = Bucket()
    database = Database(ZOO, database_url(ZOO, f"sqlite:///{tmp_path / 'zoo.sqlite3'}"))
    registry = Registry(database, store)
    parent = sae(registry, "first", "1.0")
    version = publish(registry, small_store(tmp_path / "store"), "small", parent)
    files = {file.digest.key: file for one in (parent, version) for file in one.files}
    most = sum(file.size for file in version.files)
    context = ZooContext(
        lambda: registry, embedded=False, anonymous_read=True, reading=tmp_path / "reading", reading_bytes=most
    )
    with TestClient(create_zoo_app(context=context), base_url="http://localhost", follow_redirects=False) as browser:
        store.read.clear()
        page(browser, "/zoo/ada/small/1.0/features.json")
        assert {files[key].path for key in store.read} == {"manifest.json", "features.parquet", "hints.parquet"}
        for address in (*ADDRESSES, "features/0.json", "features/6"):
            assert browser.get(f"/zoo/ada/small/1.0/{address}").status_code in (200, 303)
        assert len(store.read) == len(set(store.read))
        read = {files[key].path for key in store.read}
        assert "tokens.npy" in read
        assert not read & {"sae_weights.safetensors", "cfg.json", "promoted.parquet", "token_features.parquet"}
        kept = sum(one.stat().st_size for one in (tmp_path / "reading" / "blobs").iterdir())
        assert 0 < kept <= most
        context.looking.close()
        store.read.clear()
        assert page(browser, "/zoo/ada/small/1.0/features/0.json")  # opened again: from the cache
        assert store.read == []
        registry.changing.set_private(LOCAL, "ada", "small", True)
        page(browser, "/zoo/ada/small/1.0/features/0", 404)  # although it is here
        registry.changing.set_private(LOCAL, "ada", "small", False)
        registry.changing.delete(LOCAL, Reference.parse("ada/small@1.0"), "a person asked")
        page(browser, "/zoo/ada/small/1.0/features", 404)  # deleted elsewhere: noticed when somebody asks
        assert list((tmp_path / "reading" / "blobs").iterdir()) == []


def test_what_is_larger_than_the_bound_is_said(tmp_path: Path) -> None:
    store = Bucket()
    registry = Registry(Database(ZOO, database_url(ZOO, f"sqlite:///{tmp_path / 'zoo.sqlite3'}")), store)
    publish(registry, small_store(tmp_path / "store"), "small", sae(registry, "first", "1.0"))
    context = ZooContext(
        lambda: registry, embedded=False, anonymous_read=True, reading=tmp_path / "reading", reading_bytes=100
    )
    with TestClient(create_zoo_app(context=context), base_url="http://localhost") as browser:
        answer = browser.get("/zoo/ada/small/1.0/features.json")
        assert answer.status_code == 507
        assert "at most 100 B" in answer.json()["error"]["message"]
