"""Questions to all features of a store at once: filter, sort, page, by token, by label; answered by DuckDB.

Numbers and labels of all features (features.parquet and hints.parquet, about 0.4 KB a feature) are held in memory from the first
question on. The tables by token stay on disk: they are sorted by token, so that one token's rows are in one row group.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from neuronmap.errors import InputError
from neuronmap.features.storage.conditions import COLUMNS, TOKEN_COLUMNS, Filter, parse_filters, require_column
from neuronmap.features.storage.schema import arrow_schema

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from neuronmap.features.storage.store import FeatureStore

__all__ = ["FeatureQueries", "Rows"]

Where = str | Filter | Iterable[str | Filter]

_THREADS = 4
_LARGEST_LIMIT = 1_000_000
_SEARCHED = ("label", "output_label", "top_token_text", "top_lift_text", "top_promoted_text")
_BESIDE_TOKENS = ("status", "density", "max", "class", "label", "top_token_text")


class Rows(Sequence[dict[str, Any]]):
    """Rows of an answer, in its order.

    Args:
        table: the rows.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(place, slice):
            return self._table.take(np.arange(*place.indices(len(self)))).to_pylist()  # type: ignore[no-any-return]
        if not -len(self) <= place < len(self):
            raise IndexError(f"row {place} of {len(self)}")
        return dict(self._table.slice(place % len(self), 1).to_pylist()[0])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._table.to_pylist())

    def __repr__(self) -> str:
        return f"<Rows: {len(self):,} of {', '.join(self._table.column_names)}>"

    @property
    def features(self) -> list[int]:
        """The features, in order; one may come several times where rows are of (token, feature)."""
        return self._table["feature"].to_pylist()  # type: ignore[no-any-return]

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        return self._table

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a pandas frame."""
        return self._table.to_pandas()


class FeatureQueries:
    """What can be asked of a store; reached as ``store.queries``, closed with the store. Several threads may ask at once.

    Args:
        store: the store.

    Example:
        >>> page = store.queries.select(["status=alive", "density>=0.001"], sort="-max", limit=50)
        >>> more = store.queries.select(["status=alive", "density>=0.001"], sort="-max", limit=50, after=page[-1]["feature"])
    """

    def __init__(self, store: FeatureStore) -> None:
        import duckdb

        self._store = store
        self._lock = threading.Lock()
        self._table = _joined(store)  # by feature: row i is feature i
        self._values: dict[str, dict[str, int]] = {}
        config = {
            "threads": _THREADS,
            "enable_external_access": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self._connection = duckdb.connect(":memory:", config=config)

    def close(self) -> None:
        """Close the connection; the store does it when it is closed."""
        self._connection.close()

    # --- all features ------------------------------------------------------------------------------------------------

    def select(
        self,
        where: Where = (),
        *,
        sort: str = "feature",
        limit: int | None = 100,
        after: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> Rows:
        """Features that meet every condition, sorted; columns of hints are null where the analysis has no hints.

        Args:
            where: conditions, see :mod:`neuronmap.features.storage.conditions`.
            sort: a column; with a leading ``-`` from the largest down. Nulls come last either way, equal values by number.
            limit: at most so many rows; None for all.
            after: the last feature of the page before, to go on from there in the same order.
            columns: these only, and ``feature``; None for all.

        Raises:
            InputError: an unknown column, a value that is not of its type, an unknown token, or a limit below 1.
        """
        name, backwards = require_column(sort.removeprefix("-")), sort.startswith("-")
        wanted = list(COLUMNS) if columns is None else list(dict.fromkeys(["feature", *map(require_column, columns)]))
        condition, values, tables = self._condition(where)
        if after is not None:
            beyond, more = self._beyond(name, backwards, after)
            condition, values = f"{condition} AND {beyond}", values + more
        order = f'"{name}" {"DESC" if backwards else "ASC"} NULLS LAST, feature{_limit(limit)}'
        found = self._ask(f"SELECT feature FROM rows WHERE {condition} ORDER BY {order}", values, tables)
        return Rows(self._table.select(wanted).take(found["feature"]))

    def take(self, features: Sequence[int], columns: Sequence[str] | None = None) -> Rows:
        """Rows of given features, in the order given.

        Args:
            features: their numbers; each must be a feature.
            columns: these only, and ``feature``; None for all.

        Raises:
            InputError: an unknown column or feature.
        """
        wanted = list(COLUMNS) if columns is None else list(dict.fromkeys(["feature", *map(require_column, columns)]))
        numbers = np.array([self._store.check_feature(feature) for feature in features], np.int64)
        return Rows(self._table.select(wanted).take(numbers))

    def values_of(self, column: str) -> dict[str, int]:
        """Values of a column of text and how many features have each; null is left out.

        Raises:
            InputError: an unknown column.
        """
        if column not in self._values:
            counted = self._table[require_column(column)].value_counts().to_pylist()
            self._values[column] = {row["values"]: row["counts"] for row in counted if row["values"] is not None}
        return dict(self._values[column])

    def count(self, where: Where = ()) -> int:
        """How many features meet every condition.

        Raises:
            InputError: as :meth:`select`.
        """
        condition, values, tables = self._condition(where)
        return int(self._ask(f"SELECT count(*) FROM rows WHERE {condition}", values, tables)[0][0].as_py())

    def search_labels(self, text: str, limit: int | None = 50) -> Rows:
        """Features whose label, output label or top tokens hold every word of a text, in any case.

        Those whose label is the text come first, then those whose label begins with it, then those whose label holds it, then the
        rest; among these, by F1 of the hint and by number.

        Raises:
            InputError: the text is empty.
        """
        words = text.lower().split()
        if not words:
            raise InputError("There is nothing to search for: the text is empty.")
        condition = " AND ".join(["contains(searched, ?)"] * len(words))
        whole = " ".join(words)
        order = (
            "CASE WHEN lower(label) = ? THEN 0 WHEN starts_with(lower(label), ?) THEN 1 "
            "WHEN contains(lower(label), ?) THEN 2 ELSE 3 END, f1 DESC NULLS LAST, feature"
        )
        query = (
            f"SELECT feature FROM rows JOIN searched USING (feature) WHERE {condition} ORDER BY {order}{_limit(limit)}"
        )
        found = self._ask(query, [*words, whole, whole, whole], {"searched": self._searched})
        return Rows(self._table.take(found["feature"]))

    def random_alive(self, seed: int | None = None) -> int:
        """A feature drawn from those that are alive (status alive or dense); the same one for the same seed.

        Raises:
            InputError: none is alive.
        """
        ids = np.flatnonzero(self._store.alive)
        if not len(ids):
            raise InputError("No feature of this store is alive: none fired 10 times.")
        return int(np.random.default_rng(seed).choice(ids))

    def sample_alive(self, count: int, seed: int | None = None) -> list[int]:
        """Different features drawn from those that are alive, in the order drawn; all of them if there are fewer.

        Raises:
            InputError: none is alive, or ``count`` is below 1.
        """
        ids = np.flatnonzero(self._store.alive)
        if count < 1:
            raise InputError(f"count = {count}: at least 1 feature is drawn.")
        if not len(ids):
            raise InputError("No feature of this store is alive: none fired 10 times.")
        return [int(feature) for feature in np.random.default_rng(seed).permutation(ids)[:count]]

    def nearest_alive(self, feature: int, step: int = 0) -> int | None:
        """The nearest alive feature by number: above (step 1), below (-1) or either (0); None if there is none."""
        return self._store.nearest_alive(feature, step)

    # --- by token ----------------------------------------------------------------------------------------------------

    def tokens_of(self, token: int | str) -> list[int]:
        """Ids that a token is given by: an id itself, or a text, with and without a leading space.

        Raises:
            InputError: no such id, or no token of that text; names tokens that begin with it.
        """
        vocabulary = self._store.vocabulary
        if not isinstance(token, str):
            vocabulary.bytes_of(token)
            return [int(token)]
        found = [*vocabulary.find(token)]
        found += vocabulary.find(token[1:] if token.startswith(" ") else f" {token}")
        if not found:
            longer = vocabulary.starting_with(token.strip(" ") or token, 5)
            raise InputError(
                f"{token!r} is not one token of this vocabulary.",
                hint=f"Tokens that begin so: {', '.join(map(repr, longer))}." if longer else "Give a shorter text.",
            )
        return found

    def firing_on(self, token: int | str, limit: int | None = 50) -> Rows:
        """Features that fire on a token, those that fire on the largest share of its rows first.

        Args:
            token: its id, or its text; a text is looked up with and without a leading space.
            limit: at most so many rows; None for all.

        Returns:
            Columns of ``token_features.parquet``, the token's text, and status, density, max, class and label of the feature.

        Raises:
            InputError: no such token.
        """
        return self._by_token("token_features", token, "share_of_token", limit)

    def promoting(self, token: int | str, limit: int | None = 50) -> Rows:
        """Features that have a token among the tokens they promote, by direct logit.

        Args:
            token: as in :meth:`firing_on`.
            limit: at most so many rows; None for all.

        Returns:
            Columns of ``promoted.parquet``, the token's text, and the feature's as in :meth:`firing_on`.

        Raises:
            InputError: no such token, or the analysis was made without a language model.
        """
        return self._by_token("promoted", token, "logit", limit)

    def _by_token(self, table: str, token: int | str, largest: str, limit: int | None) -> Rows:
        _limit(limit)
        own, texts = self._rows_of(table, token), self._store.vocabulary
        own = own.sort_by([(largest, "descending"), ("token", "ascending"), ("rank", "ascending")]).slice(0, limit)
        beside = self._table.select(_BESIDE_TOKENS).take(own["feature"])
        own = own.append_column("token_text", [[texts.text_of(one) for one in own["token"].to_pylist()]])
        for name in _BESIDE_TOKENS:
            own = own.append_column(name, beside[name])
        return Rows(own)

    def _rows_of(self, table: str, token: int | str) -> pa.Table:
        """Rows of a table by token."""
        import pyarrow as pa

        self._store.tables.require(table)
        return pa.concat_tables([self._store.tables.rows(table, one) for one in self.tokens_of(token)])

    # --- inside ------------------------------------------------------------------------------------------------------

    def _condition(self, where: Where) -> tuple[str, list[Any], dict[str, pa.Table]]:
        """SQL, its parameters, and the tables that it names."""
        parts, values, tables = ["true"], [], {}
        for number, one in enumerate(parse_filters(where)):
            if one.column in TOKEN_COLUMNS:
                name, kind = f"token_{number}", "NOT IN" if one.op == "!=" else "IN"
                tables[name] = self._rows_of(TOKEN_COLUMNS[one.column], one.value).select(["feature"])  # type: ignore[arg-type]
                parts.append(f"feature {kind} (SELECT feature FROM {name})")
            else:
                part, more = one.to_sql()
                parts.append(part)
                values += more
        return " AND ".join(parts), values, tables

    def _beyond(self, name: str, backwards: bool, after: int) -> tuple[str, list[Any]]:
        """What comes after a feature in an order."""
        self._store.check_feature(after)
        column = f'"{name}"'
        value = self._table[name][int(after)].as_py()
        if value is None:
            return f"({column} IS NULL AND feature > ?)", [after]
        sign = "<" if backwards else ">"
        return f"({column} {sign} ? OR ({column} = ? AND feature > ?) OR {column} IS NULL)", [value, value, after]

    def _ask(self, query: str, values: list[Any], tables: dict[str, pa.Table]) -> pa.Table:
        """Run a query over ``rows`` and the given tables, on a cursor of its own."""
        with self._lock:
            cursor = self._connection.cursor()
        try:
            for name, table in {"rows": self._table, **tables}.items():
                cursor.register(name, table)
            return cursor.sql(query, params=values).to_arrow_table()
        finally:
            cursor.close()

    @cached_property
    def _searched(self) -> pa.Table:
        """Feature and the lower-case texts that a search looks at, joined."""
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = [pc.fill_null(self._table[name], "") for name in _SEARCHED]
        joined = pc.utf8_lower(pc.binary_join_element_wise(*texts, "\n"))
        return pa.table({"feature": self._table["feature"], "searched": joined})


def _joined(store: FeatureStore) -> pa.Table:
    """Features with their hints, in one piece; nulls where there are none."""
    import pyarrow as pa

    table = store.tables.read("features")
    hints = store.tables.read("hints") if "hints" in store.tables.names else arrow_schema("hints").empty_table()
    place = np.full(store.num_features, -1, np.int64)
    place[hints["feature"].to_numpy()] = np.arange(len(hints))
    rows = pa.array(place, mask=place < 0)
    for name in hints.column_names[1:]:
        table = table.append_column(hints.field(name), hints[name].take(rows))
    return table.combine_chunks()


def _limit(limit: int | None) -> str:
    if limit is None:
        return ""
    if not 1 <= limit <= _LARGEST_LIMIT:
        raise InputError(f"limit = {limit}; it is 1 to {_LARGEST_LIMIT:,}, or None for all.")
    return f" LIMIT {int(limit)}"
