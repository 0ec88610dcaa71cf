"""What a search finds, on every database: recall and filters. In which order full text ranks is each database's own."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from neuronmap.errors import InputError
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.principal import ANONYMOUS, LOCAL
from neuronmap.zoo.search.query import SORTS, CompatibilityQuery, Query

OTHER = "sha256:" + "1" * 64
WEIGHTS = "sha256:" + "2" * 64
TOKENIZER = "sha256:" + "3" * 64


def sae(given: Any, name: str, *, record: dict[str, Any] | None = None, **more: Any) -> str:
    base = {
        "format": "other",
        "model": {"name": "openai-community/gpt2", "digest": WEIGHTS, "tokenizer_digest": TOKENIZER},
        "hook": {"name": "layers.8.residual", "layer": 8, "component": "residual"},
        "architecture": "topk",
        "d_in": 768,
        "d_sae": 4096,
    }
    return given.publish(name=name, kind="SAE_MODEL", record={**base, **(record or {})}, **more).reference


def names(given: Any, by: Any = LOCAL, **query: Any) -> list[str]:
    page = given.registry.search(by, Query.read({"sort": "name", **query}))
    assert page.total == len(page.hits)
    return [hit.reference.partition("/")[2].partition("@")[0] for hit in page.hits]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest, new_zoo: Callable[[str], Any]) -> Any:
    """A zoo that tests only look at."""
    given = new_zoo(request.param)
    sae(
        given,
        "gpt2-small-l8",
        title="Residual stream of GPT-2 small",
        summary="Trained on OpenWebText.",
        tags=["residual", "demo set"],
        authors=[{"name": "Ada Łovelace-Schröder"}, {"name": "Bob 100%_Real"}],
        record={"metrics": {"l0": 32.0, "explained_variance": 0.81}},
    )
    sae(
        given,
        "pythia-l3",
        title="MLP of Pythia",
        tags=["demo set"],
        licence="Apache-2.0",
        record={
            "model": {"name": "EleutherAI/pythia-70m"},
            "hook": {"name": "layers.3.mlp", "layer": 3, "component": "mlp"},
            "architecture": "jumprelu",
            "d_in": 512,
            "d_sae": 16384,
            "metrics": {"l0": 64.0, "explained_variance": 0.65},
        },
    )
    given.publish({"a.txt": b"1", "card.md": b"# Hello\n\nHas **unicorns** in it."}, name="texts", card="card.md")
    return given


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("residual", ["gpt2-small-l8"]),
        ("RESIDUAL stream", ["gpt2-small-l8"]),
        ("stream residual", ["gpt2-small-l8"]),
        ("resid", ["gpt2-small-l8"]),
        ("resid stream", []),  # the last word alone may go on
        ("gpt-2", ["gpt2-small-l8"]),
        ("gpt2-sm", ["gpt2-small-l8"]),
        ("small-l8", ["gpt2-small-l8"]),
        ("l8-small", []),  # one behind the other
        ("openwebtext", ["gpt2-small-l8"]),
        ("schroder", ["gpt2-small-l8"]),
        ("SCHRÖDER", ["gpt2-small-l8"]),
        ("unicorns", ["texts"]),
        ("**unicorns**", ["texts"]),
        ("demo set", ["gpt2-small-l8", "pythia-l3"]),
        ("eleutherai/pythia-70m", ["pythia-l3"]),
        ("layers.3.mlp", ["pythia-l3"]),
        ("jumprelu pyth", ["pythia-l3"]),
        ("ada", ["gpt2-small-l8", "pythia-l3", "texts"]),
        ("nowhere", []),
        ("", ["gpt2-small-l8", "pythia-l3", "texts"]),
        ("   ", ["gpt2-small-l8", "pythia-l3", "texts"]),
        ("***", []),
        ("residual OR pythia", []),
        ('"residual', ["gpt2-small-l8"]),
        ("residual*", ["gpt2-small-l8"]),
        ("name:residual", []),
    ],
)
def test_words(filled: Any, words: str, expected: list[str]) -> None:
    assert names(filled, q=words) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"kind": "SAE_MODEL"}, ["gpt2-small-l8", "pythia-l3"]),
        ({"kind": "CIRCUIT"}, []),
        ({"tag": ["demo set"]}, ["gpt2-small-l8", "pythia-l3"]),
        ({"tag": ["demo set", "residual"]}, ["gpt2-small-l8"]),
        ({"tag": ["demo"]}, []),
        ({"model": "gpt2"}, ["gpt2-small-l8"]),
        ({"model": "GPT2"}, ["gpt2-small-l8"]),
        ({"model": "openai-community/gpt2"}, ["gpt2-small-l8"]),
        ({"model": "somebody/gpt2"}, []),
        ({"hook": "layers.3.mlp"}, ["pythia-l3"]),
        ({"layer": 3}, ["pythia-l3"]),
        ({"layer": 0}, []),
        ({"component": "residual"}, ["gpt2-small-l8"]),
        ({"architecture": "jumprelu"}, ["pythia-l3"]),
        ({"d_in": 768}, ["gpt2-small-l8"]),
        ({"width_min": 4096}, ["gpt2-small-l8", "pythia-l3"]),
        ({"width_min": 4097}, ["pythia-l3"]),
        ({"width_max": 4096}, ["gpt2-small-l8"]),
        ({"l0_min": 32, "l0_max": 33}, ["gpt2-small-l8"]),
        ({"l0_min": 64.5}, []),
        ({"metric": ["explained_variance>=0.7"]}, ["gpt2-small-l8"]),
        ({"metric": ["explained_variance > 0.81"]}, []),
        ({"metric": ["explained_variance<0.9", "l0=64"]}, ["pythia-l3"]),
        ({"metric": ["nothing<1e9"]}, []),
        ({"licence": "mit"}, ["gpt2-small-l8", "texts"]),
        ({"licence": "Apache-2.0"}, ["pythia-l3"]),
        ({"author": "łovelace"}, ["gpt2-small-l8"]),
        ({"author": "100%_"}, ["gpt2-small-l8"]),
        ({"author": "1%_"}, []),
        ({"author": "%"}, ["gpt2-small-l8"]),
        ({"namespace": "ada"}, ["gpt2-small-l8", "pythia-l3", "texts"]),
        ({"namespace": "eve"}, []),
        ({"private": False}, ["gpt2-small-l8", "pythia-l3", "texts"]),
        ({"private": True}, []),
        ({"q": "demo", "model": "gpt2", "layer": 8, "metric": ["l0<40"]}, ["gpt2-small-l8"]),
        ({"model": "gpt2", "layer": 3}, []),
        ({"layer": 2**31 - 1, "d_in": 2**31 - 1, "width_min": 2**63 - 1}, []),
    ],
)
def test_filters(filled: Any, query: dict[str, Any], expected: list[str]) -> None:
    assert names(filled, **query) == expected


def test_a_hit_shows_what_it_is(filled: Any) -> None:
    [hit] = filled.registry.search(LOCAL, Query(q="openwebtext")).hits
    assert hit.reference == "ada/gpt2-small-l8@1.0"
    assert (hit.model, hit.layer, hit.d_in, hit.width, hit.l0) == ("openai-community/gpt2", 8, 768, 4096, 32.0)
    assert hit.authors == ("Ada Łovelace-Schröder", "Bob 100%_Real")
    assert hit.tags == ("demo set", "residual")
    assert hit.metrics == {"explained_variance": 0.81, "l0": 32.0}
    assert (hit.title, hit.summary) == ("Residual stream of GPT-2 small", "Trained on OpenWebText.")
    assert hit.size == 5
    assert hit.digest == filled.registry.show(LOCAL, Reference.parse(hit.reference)).digest


def test_the_newest_version_stands_for_the_artefact(given: Any) -> None:
    given.publish(b"one", version="1.0", title="alpha")
    given.publish(b"two", version="2.0", title="beta")
    given.publish(b"three", version="3.0rc1", title="gamma")
    found = given.registry.search(LOCAL, Query())
    assert [hit.reference for hit in found.hits] == ["ada/demo@2.0"]
    assert names(given, q="alpha") == []
    labels = [hit.reference for hit in given.registry.search(LOCAL, Query(all_versions=True)).hits]
    assert sorted(labels) == ["ada/demo@1.0", "ada/demo@2.0", "ada/demo@3.0rc1"]
    given.registry.changing.deprecate(LOCAL, Reference.parse("ada/demo@2.0"), "old")
    assert [hit.reference for hit in given.registry.search(LOCAL, Query()).hits] == ["ada/demo@1.0"]


def test_yanked_deleted_and_draft_versions_are_not_found(given: Any) -> None:
    given.publish(b"one", version="1.0")
    given.publish(b"two", version="2.0")
    changing = given.registry.changing
    changing.yank(LOCAL, Reference.parse("ada/demo@2.0"), "bad")
    for query in (Query(), Query(all_versions=True), Query(q="demo", all_versions=True)):
        assert [hit.reference for hit in given.registry.search(LOCAL, query).hits] == ["ada/demo@1.0"]
    changing.restore(LOCAL, Reference.parse("ada/demo@2.0"))
    assert [hit.reference for hit in given.registry.search(LOCAL, Query(q="demo")).hits] == ["ada/demo@2.0"]
    changing.delete(LOCAL, Reference.parse("ada/demo@2.0"), "gone")
    assert [hit.reference for hit in given.registry.search(LOCAL, Query(q="demo")).hits] == ["ada/demo@1.0"]
    given.publish(b"three", version="3.0", draft=True, title="secret")
    assert names(given, q="secret") == []
    given.registry.publishing.release(LOCAL, Reference.parse("ada/demo@3.0"))
    assert names(given, q="secret") == ["demo"]


def test_a_replaced_draft_leaves_no_words_behind(given: Any) -> None:
    given.publish(b"one", draft=True, title="alpha")
    given.publish(b"two", draft=True, title="beta")
    given.registry.publishing.release(LOCAL, Reference.parse("ada/demo@1.0"))
    assert names(given, q="alpha") == []
    assert names(given, q="beta") == ["demo"]


def test_a_released_draft_is_as_new_as_its_release(given: Any) -> None:
    given.publish(b"one", name="first", draft=True)
    given.publish(b"two", name="second")
    given.registry.publishing.release(LOCAL, Reference.parse("ada/first@1.0"))
    found = given.registry.search(LOCAL, Query(sort="newest"))
    assert [hit.reference for hit in found.hits] == ["ada/first@1.0", "ada/second@1.0"]


def test_what_is_private_is_found_by_members_alone(given: Any) -> None:
    ada, eve, bob = given.person("ada"), given.person("eve"), given.person("bob")
    given.join(bob, "ada", "reader")
    given.publish(by=ada, private=True, name="hidden", title="unicorn")
    given.publish(by=ada, name="shown", title="unicorn")
    for asker, expected in ((ada, 2), (bob, 2), (eve, 1), (ANONYMOUS, 1), (LOCAL, 2)):
        page = given.registry.search(asker, Query(q="unicorn"))
        assert (page.total, len(page.hits)) == (expected, expected)
        assert given.registry.facets(asker, Query()).total == expected
        assert sum(value.count for value in given.registry.facets(asker, Query()).kinds) == expected
    assert names(given, ada, private=True) == ["hidden"]
    assert names(given, eve, private=True) == []
    given.registry.changing.set_private(ada, "ada", "hidden", False)
    assert names(given, eve, q="unicorn") == ["hidden", "shown"]


VALUES = (3.0, None, 1.0, 2.0, 2.0, None, 1.0)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def ranked(request: pytest.FixtureRequest, new_zoo: Callable[[str], Any]) -> Any:
    """SAEs with ties and gaps in their figures."""
    given = new_zoo(request.param)
    for number, value in enumerate(VALUES):
        sae(
            given,
            f"demo-{number}",
            record={"metrics": {} if value is None else {"score": value, "l0": value}, "d_sae": int(value or 9)},
        )
    return given


@pytest.mark.parametrize("sort", [*SORTS, "metric:score"])
@pytest.mark.parametrize("words", ["", "demo"])
def test_pages_hold_everything_once_in_order(ranked: Any, sort: str, words: str) -> None:
    for order in (sort, f"-{sort}"):
        seen: list[Any] = []
        query = Query(q=words, sort=order, limit=2)
        page = ranked.registry.search(LOCAL, query)
        assert page.total == len(VALUES)
        seen += page.hits
        while page.next is not None:
            page = ranked.registry.search(LOCAL, query.model_copy(update={"cursor": page.next}))
            assert page.total is None
            seen += page.hits
        assert len({hit.reference for hit in seen}) == len(seen) == len(VALUES)
        if sort in ("l0", "metric:score"):
            known = [hit.l0 for hit in seen if hit.l0 is not None]
            falling = (sort == "metric:score") != order.startswith("-")
            assert known == sorted(known, reverse=falling)
            assert [hit.l0 for hit in seen[len(known) :]] == [None, None]  # last, either way
        if sort == "name":
            shown = [hit.reference for hit in seen]
            assert shown == sorted(shown, reverse=order.startswith("-"))


def test_a_page_is_steady_while_others_publish(given: Any) -> None:
    for number in range(4):
        given.publish(str(number).encode(), name=f"demo-{number}")
    query = Query(sort="newest", limit=2)
    first = given.registry.search(LOCAL, query)
    given.publish(b"new", name="later")
    second = given.registry.search(LOCAL, query.model_copy(update={"cursor": first.next}))
    assert [hit.reference for hit in (*first.hits, *second.hits)] == [
        f"ada/demo-{number}@1.0" for number in (3, 2, 1, 0)
    ]


def test_a_cursor_of_another_search_is_refused(filled: Any) -> None:
    cursor = filled.registry.search(LOCAL, Query(sort="name", limit=1)).next
    mark = mark_of(cursor)

    def made(*values: Any) -> str:
        return urlsafe_b64encode(json.dumps(values).encode()).decode()

    again = filled.registry.search(LOCAL, Query(sort="name", limit=2, cursor=cursor))
    assert len(again.hits) == 2  # the length of a page may change
    hostile = [
        "",
        "nonsense",
        "é",
        "a" * 999,
        made(mark),
        made(mark, {}, 1),
        made(mark, "x", "1"),
        made(mark, "x", 2**70),
    ]
    hostile += [
        made(mark, "x", True),
        made(mark, "a\0b", 1),
        made("other", "x", 1),
        made(mark, "x", -1),
        "W1tbW1tb" * 100,
    ]
    hostile += [urlsafe_b64encode(f'["{mark}", NaN, 1]'.encode()).decode()]
    for one in hostile:
        with pytest.raises(InputError, match="cursor"):
            filled.registry.search(LOCAL, Query(sort="name", cursor=one))
    for other in (Query(sort="-name", cursor=cursor), Query(sort="name", q="x", cursor=cursor)):
        with pytest.raises(InputError, match="cursor"):
            filled.registry.search(LOCAL, other)


def mark_of(cursor: str) -> str:
    return json.loads(urlsafe_b64decode(cursor + "=="))[0]


@pytest.mark.parametrize(
    ("sort", "value"),
    [("name", 5), ("stars", "x"), ("stars", 5.5), ("stars", 2**31), ("width", 2**63), ("newest", "x")],
)
def test_a_forged_cursor_of_another_type_is_refused(filled: Any, sort: str, value: Any) -> None:
    """The mark is no secret: a number where text is due must not reach the database."""
    cursor = filled.registry.search(LOCAL, Query(sort=sort, limit=1)).next
    forged = urlsafe_b64encode(json.dumps([mark_of(cursor), value, 1]).encode()).decode()
    with pytest.raises(InputError, match="cursor"):
        filled.registry.search(LOCAL, Query(sort=sort, limit=1, cursor=forged))


_HOSTILE = st.text(max_size=60) | st.lists(
    st.sampled_from(
        [
            "NEAR(",
            ")",
            "AND",
            "OR",
            "NOT",
            '"',
            "'",
            "*",
            "^",
            ":",
            "{",
            "}",
            "-",
            "\\",
            "\0",
            "<->",
            "&",
            "|",
            "!",
            "a",
            "%",
        ]
    ),
    max_size=12,
).map(" ".join)


@pytest.fixture
def asked(filled: Any) -> Callable[..., int]:
    return lambda **query: filled.registry.search(LOCAL, Query.read(query)).total


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@drawn(_HOSTILE)
@example("residual\0")
@example("ﷺ" * 500)
@example("x" * 500)
@example("𐍈" * 500)
@example("' ' '")
@example("zoo_search_text MATCH 'x'")
def test_any_text_can_be_searched_for(asked: Callable[..., int], text: str) -> None:
    assert 0 <= asked(q=text[:500]) <= 3


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@drawn(
    st.sampled_from(
        ["model", "hook", "component", "architecture", "licence", "author", "namespace", "sort", "cursor", "kind"]
    ),
    _HOSTILE,
)
@example("author", "\ud800")
@example("model", "/")
@example("model", "\\")
@example("sort", "metric:x'); DROP TABLE zoo_versions; --")
def test_any_text_in_a_filter_is_answered_or_refused(asked: Callable[..., int], name: str, text: str) -> None:
    try:
        found = asked(**{name: text})
    except InputError:
        return
    assert 0 <= found <= 3


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"layer": 2**31}, "layer"),
        ({"d_in": 2**31}, "d_in"),
        ({"metric": ["x"]}, "metric.0"),
        ({"metric": ["x>=nan"]}, "metric.0"),
        ({"metric": ["x>=1e999"]}, "metric.0"),
        ({"sort": "bogus"}, "sort"),
        ({"sort": "metric:"}, "sort"),
        ({"licence": "bogus"}, "licence"),
        ({"q": "x" * 501}, "q"),
        ({"l0_min": float("nan")}, "l0_min"),
        ({"tag": ["x"] * 21}, "tag"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_search_that_cannot_be_understood(query: dict[str, Any], place: str) -> None:
    with pytest.raises(InputError, match=place.replace(".", r"\.")):
        Query.read(query)


def test_facets_count_what_a_filter_would_leave(filled: Any) -> None:
    found = filled.registry.facets(LOCAL, Query())
    assert found.total == 3
    assert [(one.value, one.count) for one in found.kinds] == [("SAE_MODEL", 2), ("DATASET", 1)]
    assert [(one.value, one.count) for one in found.models] == [("gpt2", 1), ("pythia-70m", 1)]
    assert [(one.value, one.count) for one in found.architectures] == [("jumprelu", 1), ("topk", 1)]
    assert [(one.value, one.count) for one in found.licences] == [("MIT", 2), ("Apache-2.0", 1)]
    narrowed = filled.registry.facets(LOCAL, Query(model="gpt2", q="residual"))
    assert narrowed.total == 1
    assert [(one.value, one.count) for one in narrowed.models] == [("gpt2", 1)]
    by_model = filled.registry.facets(LOCAL, Query(model="gpt2"))
    assert [one.value for one in by_model.models] == ["gpt2", "pythia-70m"]  # its own setting does not narrow it
    assert [(one.value, one.count) for one in by_model.architectures] == [("topk", 1)]
    for value in found.models:
        assert filled.registry.search(LOCAL, Query(model=value.value)).total == value.count


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def saes(request: pytest.FixtureRequest, new_zoo: Callable[[str], Any]) -> Any:
    """SAEs that fit GPT-2 more or less; tests only look at them."""
    given = new_zoo(request.param)
    model = {"name": "openai-community/gpt2", "tokenizer_digest": TOKENIZER}
    sae(given, "exact")
    sae(given, "by-name", record={"model": model})
    sae(given, "revision", record={"model": {**model, "digest": OTHER}})
    sae(
        given,
        "declared",
        record={"model": {"name": "distilgpt2"}, "compatibility": {"models": ["GPT2"], "layers": [8, 9]}},
    )
    sae(given, "tokenizer", record={"model": {"name": "other", "tokenizer_digest": TOKENIZER}})
    sae(given, "width", record={"model": {"name": "bert"}})
    sae(given, "narrow", record={"d_in": 512})
    sae(given, "layer-nine", record={"hook": {"name": "layers.9.mlp", "layer": 9, "component": "mlp"}})
    given.publish(name="no-sae")
    return given


def fits(given: Any, by: Any = LOCAL, **query: Any) -> dict[str, str]:
    page = given.registry.compatible(by, CompatibilityQuery.read(query))
    assert page.total >= len(page.hits)
    assert all(hit.reasons for hit in page.hits)
    return {hit.reference.partition("/")[2].partition("@")[0]: hit.fit for hit in page.hits}


def test_which_saes_fit_a_model_and_a_layer(saes: Any) -> None:
    asked = {
        "model": "gpt2",
        "model_digest": WEIGHTS,
        "tokenizer_digest": TOKENIZER,
        "layer": 8,
        "component": "residual",
    }
    found = fits(saes, **asked, d_in=768)
    assert found == {
        "exact": "exact",
        "by-name": "name",
        "declared": "declared",
        "revision": "revision",
        "tokenizer": "tokenizer",
        "width": "width",
    }
    assert list(found) == ["exact", "by-name", "declared", "revision", "tokenizer", "width"]  # the best first
    page = saes.registry.compatible(LOCAL, CompatibilityQuery(**asked, d_in=768))
    assert [hit.usable for hit in page.hits] == [True, True, True, False, False, False]
    assert "exactly these weights" in page.hits[0].reasons[0]
    assert "another revision" in page.hits[3].reasons[0]
    assert "same width, 768" in page.hits[5].reasons[0]


def test_fits_by_name_alone(saes: Any) -> None:
    assert fits(saes, model="gpt2", layer=8) == dict.fromkeys(["exact", "by-name", "revision", "narrow"], "name") | {
        "declared": "declared"
    }
    assert fits(saes, model="gpt2", layer=9) == {"layer-nine": "name", "declared": "declared"}
    assert fits(saes, model="gpt2", layer=9, component="residual") == {"declared": "declared"}
    assert fits(saes, model="gpt2", layer=99) == {}
    assert fits(saes, model="distilgpt2") == {"declared": "name"}
    assert fits(saes, model_digest=OTHER) == {"revision": "exact"}
    assert fits(saes, d_in=512) == {"narrow": "width"}
    assert set(fits(saes, tokenizer_digest=TOKENIZER)) >= {"exact", "tokenizer", "narrow"}
    assert fits(saes, model="gp_2") == {}


def test_a_compatibility_query_needs_something_to_go_by() -> None:
    with pytest.raises(InputError, match="one of model"):
        CompatibilityQuery.read({"layer": 8})
    with pytest.raises(InputError, match="model_digest"):
        CompatibilityQuery.read({"model_digest": "sha256:x"})


def test_private_yanked_and_older_saes_do_not_fit(given: Any) -> None:
    ada = given.person("ada")
    sae(given, "hidden", by=ada, private=True)
    assert fits(given, ada, model="gpt2") == {"hidden": "name"}
    assert fits(given, ANONYMOUS, model="gpt2") == {}
    sae(given, "twice", by=ada, version="1.0")
    sae(given, "twice", by=ada, version="2.0", data=b"two")
    page = given.registry.compatible(ANONYMOUS, CompatibilityQuery(model="gpt2"))
    assert [hit.reference for hit in page.hits] == ["ada/twice@2.0"]
    given.registry.changing.yank(ada, Reference.parse("ada/twice@2.0"), "bad")
    page = given.registry.compatible(ANONYMOUS, CompatibilityQuery(model="gpt2"))
    assert [hit.reference for hit in page.hits] == ["ada/twice@1.0"]
