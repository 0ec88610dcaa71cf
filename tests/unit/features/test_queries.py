"""Questions to all features: every answer equals a plain search through the rows, and no text becomes SQL."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_stores import FEATURES, feature_rows, hint_rows, small_store

from neuronmap.errors import InputError
from neuronmap.features.storage.conditions import COLUMNS, Filter, parse_filter
from neuronmap.features.storage.queries import FeatureQueries
from neuronmap.features.storage.store import FeatureStore

ROWS = [{**feature, **hint} for feature, hint in zip(feature_rows(), hint_rows(), strict=True)]


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> FeatureQueries:
    return FeatureStore.open(small_store(tmp_path_factory.mktemp("q") / 'it\'s a [store]*? "x"')).queries


# --- conditions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("density>=0.001", Filter("density", ">=", 0.001)),
        (" firings < 12 ", Filter("firings", "<", 12)),
        ("class=punctuation", Filter("class", "=", "punctuation")),
        ("class == punctuation", Filter("class", "=", "punctuation")),
        ("label~berlin", Filter("label", "~", "berlin")),
        ("label!~x>=y", Filter("label", "!~", "x>=y")),
        ('top_token_text=" the"', Filter("top_token_text", "=", " the")),
        ("max=null", Filter("max", "=", None)),
        ('label="null"', Filter("label", "=", "null")),
        ("label=", Filter("label", "=", "")),
        ("max>-1e-3", Filter("max", ">", -0.001)),
        ("fires_on=5", Filter("fires_on", "=", 5)),
        ('fires_on="5"', Filter("fires_on", "=", "5")),
        ("promotes!= Berlin", Filter("promotes", "!=", "Berlin")),
    ],
)
def test_conditions_are_read(text: str, expected: Filter) -> None:
    assert parse_filter(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("density", "is not a condition"),
        ("", "is not a condition"),
        ("densty>=1", "Did you mean density"),
        ("zzz=1", "Columns: feature, status"),
        ("density>=much", "'much' is not a number"),
        ("density>=nan", "holds numbers"),
        ("density~1", "'1' is not a number|holds numbers"),
        ("label>3", "holds text"),
        ("max>null", "null is compared with = or != only"),
        ("fires_on>=3", "takes = or !="),
        ("fires_on=", "takes = or !="),
        ("density;DROP TABLE rows--=1", "is not a condition"),
        ('"density" OR 1=1', "is not a condition"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_filter(text)


@pytest.mark.parametrize(
    "given", [("label", "LIKE", "x"), ("label; --", "=", "x"), ("label", "=", 3), ("max", "=", "3")]
)
def test_conditions_made_in_python_are_checked_too(given: tuple[Any, ...]) -> None:
    with pytest.raises(InputError):
        Filter(*given)


# --- filter, sort, page ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ((), list(range(8))),
        ("status=alive", [0, 1, 6, 7]),
        (["status=alive", "density>=0.005"], [0]),
        ("status!=alive", [2, 3, 4, 5]),
        ("max=null", [2, 5]),
        ("max!=null", [0, 1, 3, 4, 6, 7]),
        ("max!=9", [0, 2, 3, 4, 5, 7]),  # what has no maximum has not the maximum 9
        ("label~BERLIN", [0, 6]),
        ("label!~berlin", [1, 2, 3, 4, 5, 7]),
        ("label=", [2, 5]),
        ("label~100%", [7]),
        ("label~_", []),
        ("label~'12'", [7]),
        ('top_token_text=" the"', [1, 4]),
        ("top_token_text~the", [1, 4]),
        ("feature<=1", [0, 1]),
        ("f1=0.9", [0]),  # a float32 column
        ("f1>=0.8", [0, 1]),
        ("f1!=0.8", [0, 2, 3, 4, 5, 6, 7]),
        ("density<1e30", list(range(8))),
        ("max<1e300", [0, 1, 3, 4, 6, 7]),
        ("firings<99999999999999999999999", list(range(8))),
        ("fires_on=the", [1, 4]),
        ("fires_on=6", [6]),
        ("fires_on!=the", [0, 2, 3, 5, 6, 7]),
        (["fires_on=Berlin", "promotes=the"], [0]),
        (["promotes= a", "class=number"], [7]),
    ],
)
def test_filters(queries: FeatureQueries, where: Any, expected: list[int]) -> None:
    assert queries.select(where).features == expected
    assert queries.count(where) == len(expected)


def test_rows_hold_every_column_of_features_and_hints(queries: FeatureQueries) -> None:
    rows = queries.select()
    assert list(rows[0]) == list(COLUMNS)
    assert [{name: row[name] for name in ROWS[0] if name != "f1"} for row in rows] == [
        {name: value for name, value in row.items() if name != "f1"} for row in ROWS
    ]
    assert [row["f1"] for row in rows] == [row["f1"] and pytest.approx(row["f1"]) for row in ROWS]
    assert rows[-1]["feature"] == 7
    assert [row["feature"] for row in rows[2:4]] == [2, 3]
    assert rows[8:] == []
    with pytest.raises(IndexError):
        rows[8]
    assert rows.to_arrow().column_names == list(COLUMNS)
    assert isinstance(rows.to_pandas(), pd.DataFrame)
    assert rows.to_pandas()["label"].tolist() == [row["label"] for row in ROWS]
    assert list(queries.select(columns=["label", "feature", "max"])[0]) == ["feature", "label", "max"]


SORTS = ["feature", "max", "label", "f1", "status", "density", "top_token_text", "firings"]


@given(
    column=st.sampled_from(SORTS),
    backwards=st.booleans(),
    limit=st.integers(1, 9),
    where=st.sampled_from([(), "status=alive", "max!=null", "fires_on=the", "label~e"]),
)
@settings(max_examples=60, deadline=None)
def test_pages_in_any_order_are_the_sorted_whole(
    queries: FeatureQueries, column: str, backwards: bool, limit: int, where: Any
) -> None:
    held = queries.select(where).features
    valued = [row for row in ROWS if row["feature"] in held and row[column] is not None]
    expected = sorted(valued, key=lambda row: row[column], reverse=backwards)  # stable: equal values by number
    expected += [row for row in ROWS if row["feature"] in held and row[column] is None]
    found: list[int] = []
    after = None
    while page := queries.select(
        where, sort=f"-{column}" if backwards else column, limit=limit, after=after, columns=["status"]
    ):
        found += page.features
        after = page[-1]["feature"]
        assert len(page) <= limit
    assert found == [row["feature"] for row in expected]


def test_bad_orders_and_limits_are_refused(queries: FeatureQueries) -> None:
    for sort in ("maximum", "max; DROP TABLE rows", "--max", 'max" DESC --'):
        with pytest.raises(InputError, match="There is no column"):
            queries.select(sort=sort)
    with pytest.raises(InputError, match="There is no column"):
        queries.select(columns=["1) FROM rows; --"])
    for limit in (0, -1, 10**9):
        with pytest.raises(InputError, match="it is 1 to 1,000,000"):
            queries.select(limit=limit)
        with pytest.raises(InputError, match="it is 1 to 1,000,000"):
            queries.firing_on(3, limit=limit)
    with pytest.raises(InputError, match="no feature 8"):
        queries.select(after=8)


HOSTILE = [
    "x'; DROP TABLE rows; --",
    "' OR '1'='1",
    '" OR ""="',
    "x' UNION SELECT * FROM read_csv('secret') --",
    "\\'; SELECT 1; --",
    "$1", "?", "%", "_", "*", "\x00", "🙂",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_values_are_never_sql(queries: FeatureQueries, text: str) -> None:
    for column, op in (("label", "="), ("label", "~"), ("status", "!="), ("top_token_text", "!~")):
        found = queries.select([Filter(column, op, text)]).features
        held = [row["feature"] for row in ROWS if text.lower() in (row[column] or "").lower()]
        equal = [row["feature"] for row in ROWS if row[column] == text]
        expected = {"=": equal, "~": held}.get(
            op, [row for row in range(8) if row not in (equal if op == "!=" else held)]
        )
        assert found == expected
    expected = [row["feature"] for row in ROWS if text.strip() and text.lower() in f"{row['label']}"]
    assert sorted(queries.search_labels(text).features) == expected
    with pytest.raises(InputError, match="is not one token"):
        queries.firing_on(text + "zz")
    assert queries.count() == len(FEATURES)


def test_the_connection_reaches_no_file(queries: FeatureQueries, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(Exception, match=r"(?i)permission|disabled"):
        queries._connection.execute(f"SELECT * FROM read_csv('{tmp_path}/secret.csv')")


# --- search ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("berlin", [0, 6]),  # the label itself before a label that holds it
        ("BERLIN", [0, 6]),
        ("cities berlin", [6]),
        ("paris berlin", [6]),
        ("say É", [1]),  # the output label
        ("the", [1, 4]),  # label; then a top token
        ("nowhere", []),
        ("100%", [7]),
    ],
)
def test_labels_are_searched(queries: FeatureQueries, text: str, expected: list[int]) -> None:
    assert queries.search_labels(text).features == expected


def test_an_empty_search_is_refused(queries: FeatureQueries) -> None:
    with pytest.raises(InputError, match="nothing to search for"):
        queries.search_labels("  ")
    assert len(queries.search_labels("e", limit=1)) == 1


# --- tokens ------------------------------------------------------------------------------------------------------


def test_features_that_fire_on_a_token(queries: FeatureQueries) -> None:
    found = queries.firing_on(" Berlin")
    assert found.features == [0, 4]
    assert found[0]["token_text"] == " Berlin"
    assert (found[0]["label"], found[0]["class"], found[0]["rank"]) == ("Berlin", "token", 0)
    assert [row["share_of_token"] for row in found] == pytest.approx([0.7, 0.2])
    assert queries.firing_on(5).features == [0, 4]
    assert queries.firing_on("Berlin").features == [0, 4]  # with a leading space
    assert queries.firing_on("berlin").features == [6]
    assert queries.firing_on(" the", limit=1).features == [4]
    assert queries.firing_on(9).features == []


def test_a_text_is_looked_up_with_and_without_its_space(queries: FeatureQueries) -> None:
    assert queries.tokens_of("a") == [1, 2]
    assert queries.tokens_of(" a") == [2, 1]
    with pytest.raises(InputError, match=r"(?s)'Ber' is not one token.*begin so: ' Berlin'"):
        queries.tokens_of("Ber")
    with pytest.raises(InputError, match="ids are 0 to 9"):
        queries.firing_on(10)


def test_features_that_promote_a_token(queries: FeatureQueries, tmp_path: Path) -> None:
    assert queries.promoting("the").features == [0, 1]
    assert [row["token_text"] for row in queries.promoting("The")] == ["The"]
    assert queries.promoting("a").features == [7]
    without = FeatureStore.open(small_store(tmp_path / "s", without=("promoted",))).queries
    for ask in (lambda: without.promoting("the"), lambda: without.select("promotes=the")):
        with pytest.raises(InputError, match="no promoted tokens"):
            ask()


# --- given features ------------------------------------------------------------------------------------------------


def test_rows_of_given_features_come_in_the_order_given(queries: FeatureQueries) -> None:
    found = queries.take([7, 0, 7], ["status", "label"])
    assert found.to_arrow().column_names == ["feature", "status", "label"]
    whole = {row["feature"]: row for row in queries.select(limit=None)}
    assert [row["feature"] for row in found] == [7, 0, 7]
    assert all(row[name] == whole[row["feature"]][name] for row in found for name in row)
    assert len(queries.take([])) == 0
    for wrong in ([-1], [99]):
        with pytest.raises(InputError, match="no feature"):
            queries.take(wrong)
    with pytest.raises(InputError, match="no column"):
        queries.take([0], ["nonsense"])


def test_values_of_a_column_are_counted(queries: FeatureQueries) -> None:
    statuses = [row["status"] for row in queries.select(limit=None)]
    assert queries.values_of("status") == {name: statuses.count(name) for name in set(statuses)}
    assert None not in queries.values_of("class")
    queries.values_of("status").clear()
    assert queries.values_of("status")
    with pytest.raises(InputError, match="no column"):
        queries.values_of("nonsense")


# --- alive -------------------------------------------------------------------------------------------------------


def test_random_alive_features_are_drawn_by_seed(queries: FeatureQueries) -> None:
    drawn = [queries.random_alive(seed) for seed in range(60)]
    assert set(drawn) == {0, 1, 4, 6, 7}
    assert drawn == [queries.random_alive(seed) for seed in range(60)]
    assert queries.random_alive() in {0, 1, 4, 6, 7}
    assert queries.nearest_alive(2, 1) == 4


def test_several_random_features_are_different_and_drawn_by_seed(queries: FeatureQueries) -> None:
    drawn = [queries.sample_alive(3, seed) for seed in range(20)]
    assert all(len(set(one)) == 3 and set(one) <= {0, 1, 4, 6, 7} for one in drawn)
    assert len({tuple(one) for one in drawn}) > 5
    assert drawn == [queries.sample_alive(3, seed) for seed in range(20)]
    assert sorted(queries.sample_alive(99, 0)) == [0, 1, 4, 6, 7]
    with pytest.raises(InputError, match="at least 1"):
        queries.sample_alive(0)


def test_without_a_live_feature_none_is_drawn(tmp_path: Path) -> None:
    import pyarrow as pa
    from made_stores import small_tables, tokens, write_store

    tables = small_tables()
    status = pa.array(["never"] * 8)
    tables["features"] = tables["features"].set_column(1, tables["features"].schema.field("status"), status)
    store = FeatureStore.open(write_store(tmp_path / "s", tables, tokens(), tokens() >= 0))
    assert store.nearest_alive(3) is None
    with pytest.raises(InputError, match="No feature of this store is alive"):
        store.queries.random_alive(0)
    with pytest.raises(InputError, match="features are 0 to 7"):
        store.feature(9)


# --- hints that are missing, threads, closing --------------------------------------------------------------------


def test_without_hints_their_columns_are_null(tmp_path: Path) -> None:
    queries = FeatureStore.open(small_store(tmp_path / "s", without=("hints",))).queries
    rows = queries.select(["class=null", "status=alive"], sort="-f1")
    assert rows.features == [0, 1, 6, 7]
    assert rows[0]["label"] is None
    assert queries.select("label~berlin").features == []
    assert queries.search_labels("the").features == [1, 4]
    assert queries.firing_on("the")[0]["label"] is None


def test_hints_of_some_features_find_their_rows(tmp_path: Path) -> None:
    from made_stores import small_tables, tokens, write_store

    tables = small_tables()
    tables["hints"] = tables["hints"].take([6, 1])
    queries = FeatureStore.open(write_store(tmp_path / "s", tables, tokens(), tokens() >= 0)).queries
    assert queries.select("label!=null").features == [1, 6]
    assert queries.select("label~cities").features == [6]


def test_several_threads_ask_at_once(queries: FeatureQueries) -> None:
    wrong: list[Any] = []

    def ask(number: int) -> None:
        for _ in range(15):
            feature = number % 8
            found = queries.select(f"feature={feature}")
            if found.features != [feature] or queries.firing_on("the").features != [4, 1]:
                wrong.append(found)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_connection_closes_with_the_store(tmp_path: Path) -> None:
    import duckdb

    with FeatureStore.open(small_store(tmp_path / "s")) as store:
        queries = store.queries
        assert queries.count() == 8
    with pytest.raises(duckdb.Error):
        queries.count()
