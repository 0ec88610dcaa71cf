"""``LabelBook``: everything that was said of features, in one database, and the labels that follow from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeVar

from sqlalchemy import ColumnElement, Connection, and_, case, delete, func, insert, or_, select, tuple_

from neuronmap.database import Database, database_url
from neuronmap.errors import ConfigError, InputError
from neuronmap.hashing import digest_json
from neuronmap.interpretation.labels import tables
from neuronmap.interpretation.labels.acts import Act, Author, Label, Listing, Retract, Score, Verdict, read_act
from neuronmap.interpretation.labels.choosing import SORTS, conditions, holding, order_by
from neuronmap.interpretation.labels.database import LABELS
from neuronmap.interpretation.labels.held import Conflict, HeldLabel, Said, Standing, held_labels
from neuronmap.interpretation.labels.saying import said_before
from neuronmap.interpretation.labels.sense import require_sense

__all__ = ["SORTS", "LabelBook", "Side", "Summary"]

Side = Literal["input", "output"]
ACTS, NOW = tables.acts, tables.current
_INSIDE = (NOW.c.feature, NOW.c.at, NOW.c.id)
"""The order of labels that are otherwise alike: by feature, the oldest first."""
_CHUNK = 500
_PAGE = 100_000

Item = TypeVar("Item")
Held = list[HeldLabel]


class Summary(NamedTuple):
    """What a book holds of one SAE.

    Attributes:
        sae: digest of its weights.
        acts: how many.
        labels: that hold.
        features: that have one.
        conflicts: labels that somebody disagrees with.
        authors: labels that hold of each author, as (kind, name, count), the most first.
    """

    sae: str
    acts: int
    labels: int
    features: int
    conflicts: int
    authors: tuple[tuple[str, str, int], ...]


class _Rehearsed(Exception):
    """Nothing is kept."""


class LabelBook:
    """The acts of one database. Any number of processes and threads may use it at once.

    Args:
        database: where they are kept.

    Example:
        >>> from neuronmap.interpretation.labels import Author, Label, stamp
        >>> book = LabelBook.open(f"sqlite:///{folder}/labels.sqlite3")
        >>> ada = Author(kind="person", name="Ada")
        >>> book.add([Label(sae="sha256:" + 64 * "0", feature=7, author=ada, at=stamp(), text="colours", method="by hand")])
        1
        >>> [held.label.text for held in book.labels("sha256:" + 64 * "0", 7)]
        ['colours']
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def open(cls, url: str | None = None) -> LabelBook:
        """Open the database, and make it or bring it up to date where needed.

        Args:
            url: ``sqlite:////absolute/path`` or ``postgresql+psycopg://user@host/name``; None for ``NEURONMAP_LABELS_DATABASE``,
                else ``<home>/labels.sqlite3``.

        Raises:
            ConfigError, MismatchError, ResourceError, DamagedError, MissingDependencyError: as for every database of ours.
        """
        return cls(Database(LABELS, database_url(LABELS, url)))

    def close(self) -> None:
        """Let go of the connections."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- adding ------------------------------------------------------------------------------------------------------

    def add(self, acts: Iterable[Act], *, merging: bool = False) -> int:
        """Write acts down, all of them or none. One that is there already is not written again.

        Nor is a label that its author has given already and that holds (:func:`~neuronmap.interpretation.labels.saying.says_the_same`);
        :meth:`say` gives the one that stands. Merging takes acts as they are: whoever merges the same books holds the same acts.

        Args:
            acts: in any order.
            merging: take acts about labels that are not known here (yet), as another book may have them; they change nothing until
                then. Without it every act must make sense now.

        Returns:
            How many were new.

        Raises:
            InputError: an act is about one that is not known, or that it may not be about.
        """
        given = {act.id: act for act in acts}
        if not given:
            return 0
        with self.database.write() as connection:
            self.database.lock(connection, 1)
            return len(self._put(connection, given, merging))

    def say(self, act: Act) -> Act:
        """Write one act down, as :meth:`add` does.

        Returns:
            The act; of a label that its author has given already and that still holds, that one: saying it twice is saying it once.

        Raises:
            InputError: it is about one that is not known, or that it may not be about.
        """
        with self.database.write() as connection:
            self.database.lock(connection, 1)
            said = said_before(connection, [act]) if isinstance(act, Label) else {}
            if act.id not in said:
                self._put(connection, {act.id: act}, False)
        return said.get(act.id, act)

    def merged(self, acts: Iterable[Act], *, rehearse: bool = False) -> tuple[set[int], set[int]]:
        """Merge acts, and tell what was in conflict before and is after.

        Args:
            acts: in any order.
            rehearse: undo it again.

        Returns:
            Features that something new is said of and somebody disagrees about: before, after.
        """
        given = {act.id: act for act in acts}
        touched = {(act.sae, act.feature) for act in given.values()}
        with suppress(_Rehearsed), self.database.write() as connection:
            self.database.lock(connection, 1)
            before = self._disputed(connection, touched)
            self._put(connection, given, True)
            after = self._disputed(connection, touched)
            if rehearse:
                raise _Rehearsed
        return before, after

    def _put(self, connection: Connection, given: dict[str, Act], merging: bool) -> dict[str, Act]:
        """Write down what is new of some acts by id, and give that."""
        known = self._known(connection, given)
        new = {identifier: act for identifier, act in given.items() if identifier not in known}
        if not merging:
            spoken_of = {act.target for act in new.values()}
            labels = [act for act in new.values() if isinstance(act, Label) and act.id not in spoken_of]
            for identifier in said_before(connection, labels):
                del new[identifier]
            self._require_targets(connection, new)
        for rows in _chunks([_row(identifier, act) for identifier, act in new.items()]):
            connection.execute(insert(ACTS), rows)
        self._work_out(connection, {(act.sae, act.feature) for act in new.values() if not isinstance(act, Verdict)})
        return new

    def _disputed(self, connection: Connection, touched: set[tuple[str, int]]) -> set[int]:
        found: set[int] = set()
        for sae in {sae for sae, _ in touched}:
            for part in _chunks([feature for one, feature in touched if one == sae]):
                query = select(NOW.c.feature).where(NOW.c.sae == sae, NOW.c.conflict, NOW.c.feature.in_(part))
                found.update(connection.scalars(query))
        return found

    def known(self, identifiers: Iterable[str]) -> set[str]:
        """Those of some acts that are in the book."""
        with self.database.read() as connection:
            return self._known(connection, identifiers)

    def _known(self, connection: Connection, identifiers: Iterable[str]) -> set[str]:
        found: set[str] = set()
        for part in _chunks(list(identifiers)):
            found.update(connection.scalars(select(ACTS.c.id).where(ACTS.c.id.in_(part))))
        return found

    def _require_targets(self, connection: Connection, new: dict[str, Act]) -> None:
        targets = {act.target for act in new.values() if act.target is not None}
        there: dict[str, Act] = dict(new)
        for part in _chunks([one for one in targets if one not in new]):
            query = select(ACTS.c.id, ACTS.c.said).where(ACTS.c.id.in_(part))
            there.update((row.id, _without_id(row.said)) for row in connection.execute(query))
        for act in new.values():
            if act.target is not None:
                require_sense(act, act.target, there.get(act.target))

    def _work_out(self, connection: Connection, touched: set[tuple[str, int]]) -> None:
        """Make the labels that hold of some features anew from all that was said of them."""
        by_sae: dict[str, list[int]] = defaultdict(list)
        for sae, feature in sorted(touched):
            by_sae[sae].append(feature)
        for sae, features in by_sae.items():
            for part in _chunks(features):
                said = self._standing(connection, sae, part)
                connection.execute(delete(NOW).where(NOW.c.sae == sae, NOW.c.feature.in_(part)))
                rows = [_current_row(held) for one in said.values() for held in held_labels(one)]
                for some in _chunks(rows):
                    connection.execute(insert(NOW), some)

    def _standing(self, connection: Connection, sae: str, features: Sequence[int]) -> dict[int, Standing]:
        query = select(ACTS.c.id, ACTS.c.feature, ACTS.c.said).where(
            ACTS.c.sae == sae, ACTS.c.feature.in_(features), ACTS.c.kind != "verdict"
        )
        found: dict[int, list[tuple[str, Act]]] = {feature: [] for feature in features}
        for row in connection.execute(query):
            found[row.feature].append((row.id, _without_id(row.said)))
        return {feature: Standing(one) for feature, one in found.items()}

    # --- labels that hold --------------------------------------------------------------------------------------------

    def labels(
        self,
        sae: str,
        feature: int | None = None,
        *,
        side: Side | None = None,
        author_kind: str | None = None,
        author: str | None = None,
        method: str | None = None,
        text: str = "",
        conflict: bool | None = None,
        min_low: float | None = None,
        sort: str = "feature",
        limit: int = 1000,
        after: str | None = None,
    ) -> Held:
        """Labels that hold: neither replaced by a new wording nor taken back.

        Args:
            sae: digest of its weights.
            feature: its number; None for all.
            side: input or output; None for both.
            author_kind: rule, model or person; None for all.
            author: name of the author.
            method: how they came about.
            text: words that all stand in the label or its explanation, in any case.
            conflict: only those that somebody disagrees with, or that nobody does.
            min_low: least low end of the score's interval.
            sort: one of :data:`SORTS`.
            limit: how many at most, 1 to 100,000.
            after: id of the last label of the page before.

        Raises:
            ConfigError: no such order, or limit.
        """
        if not 1 <= limit <= _PAGE:
            raise ConfigError(f"limit = {limit}: 1 to {_PAGE:,} labels are given at a time.")
        asked = conditions(sae, feature, side, author_kind, author, method, text, conflict, min_low)
        value, down = order_by(sort)
        query = select(NOW.c.held).where(*asked)
        with self.database.read() as connection:
            if after is not None:
                last = connection.execute(select(value, *_INSIDE).where(NOW.c.id == after)).first()
                if last is None:
                    raise InputError(f"There is no label {after[:40]} any more to go on from.", hint="Begin anew.")
                beyond = value < last[0] if down else value > last[0]
                same = tuple_(*_INSIDE) > tuple_(*last[1:])
                query = query.where(or_(beyond, and_(value == last[0], same)))
            query = query.order_by(value.desc() if down else value, *_INSIDE).limit(limit)
            return [HeldLabel.from_dict(one) for one in connection.scalars(query)]

    def count(self, sae: str, **asked: Any) -> int:
        """How many labels :meth:`labels` would give without a limit; takes the same conditions."""
        names = ("feature", "side", "author_kind", "author", "method", "text", "conflict", "min_low")
        values = {name: asked.pop(name, "" if name == "text" else None) for name in names}
        if asked:
            raise ConfigError(f"There is no condition {next(iter(asked))!r}. Conditions: {', '.join(names)}.")
        with self.database.read() as connection:
            query = select(func.count()).select_from(NOW).where(*conditions(sae, **values))
            return int(connection.execute(query).scalar_one())

    def best(self, sae: str, features: Sequence[int], *, side: Side = "input") -> dict[int, HeldLabel]:
        """One label a feature, for tables and cards; features without one are left out.

        People's labels with more votes for them than against come first, the most votes first; then labels whose score is surely above
        chance, by the low end of its interval; then people's other labels, models', rules'; last those with more votes against them.
        Of equal ones the newest (:meth:`HeldLabel.rank`).

        Args:
            sae: digest of its weights.
            features: numbers.
            side: input or output.
        """
        found: dict[int, list[HeldLabel]] = defaultdict(list)
        with self.database.read() as connection:
            for part in _chunks(list(dict.fromkeys(features))):
                query = select(NOW.c.held).where(NOW.c.sae == sae, NOW.c.side == side, NOW.c.feature.in_(part))
                for held in map(
                    HeldLabel.from_dict, connection.scalars(query.order_by(NOW.c.at.desc(), NOW.c.id.desc()))
                ):
                    found[held.label.feature].append(held)
        return {feature: min(found[feature], key=HeldLabel.rank) for feature in features if feature in found}

    def search(self, sae: str | None, text: str, *, limit: int = 1000) -> Held:
        """Labels that hold every word of a text, in themselves or their explanation, in any case; the best of each feature first.

        Args:
            sae: digest of its weights; None for all SAEs.
            text: words.
            limit: how many at most.
        """
        if not text.strip():
            return []
        query = select(NOW.c.held).where(*holding(text)).order_by(NOW.c.feature, NOW.c.id).limit(limit)
        with self.database.read() as connection:
            found = connection.scalars(query if sae is None else query.where(NOW.c.sae == sae))
            return sorted(map(HeldLabel.from_dict, found), key=HeldLabel.rank)

    def conflicts(self, sae: str, *, limit: int = 1000) -> list[Conflict]:
        """Features that somebody disagrees about: different labels by different authors on one side, or votes against one.

        Args:
            sae: digest of its weights.
            limit: how many at most, by number of the feature.
        """
        places = (
            select(NOW.c.feature, NOW.c.side)
            .where(NOW.c.sae == sae, NOW.c.conflict)
            .distinct()
            .order_by(NOW.c.feature, NOW.c.side)
            .limit(limit)
        )
        found: dict[tuple[int, str], list[HeldLabel]] = {}
        with self.database.read() as connection:
            wanted = [(row.feature, row.side) for row in connection.execute(places)]
            for part in _chunks(list(dict.fromkeys(feature for feature, _ in wanted))):
                query = select(NOW.c.held).where(NOW.c.sae == sae, NOW.c.feature.in_(part))
                for held in map(HeldLabel.from_dict, connection.scalars(query)):
                    found.setdefault((held.label.feature, held.label.side), []).append(held)
        return [
            Conflict(sae, feature, side, tuple(sorted(found[feature, side], key=HeldLabel.rank)))
            for feature, side in wanted
        ]

    def labelled(self, sae: str, side: Side, author: Author) -> set[int]:
        """Features of which a label by an author holds, so that a run that was cut off goes on with the others."""
        query = select(NOW.c.feature).where(
            NOW.c.sae == sae, NOW.c.side == side, NOW.c.author_kind == author.kind, NOW.c.author == author.name
        )
        with self.database.read() as connection:
            return set(connection.scalars(query))

    # --- what was said -----------------------------------------------------------------------------------------------

    def said(self, sae: str, feature: int) -> Said:
        """Everything about one feature: labels, comments, flags, lists, and what no longer holds. Answers of blind tasks are left out."""
        with self.database.read() as connection:
            standing = self._standing(connection, sae, [feature])[feature]
        return Said(tuple(held_labels(standing)), standing)

    def history(self, sae: str, feature: int) -> list[Act]:
        """All acts about a feature, the oldest first; answers of blind tasks are left out: nobody shall look them up while they judge."""
        return [act for act in self.acts(sae, feature=feature) if not isinstance(act, Verdict)]

    def get(self, identifier: str) -> Act:
        """An act with all that it says.

        Raises:
            InputError: there is none of that id.
        """
        query = select(ACTS.c.said, ACTS.c.judgements).where(ACTS.c.id == identifier)
        with self.database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise InputError(f"There is no act {identifier[:40]} in this book.")
        return _act(row)

    def held(self, identifier: str) -> HeldLabel | None:
        """A label that holds; None where there is none of that id, or it does not hold any more."""
        with self.database.read() as connection:
            found = connection.scalar(select(NOW.c.held).where(NOW.c.id == identifier))
        return None if found is None else HeldLabel.from_dict(found)

    def acts(
        self,
        sae: str | None = None,
        kinds: Sequence[str] | None = None,
        *,
        feature: int | None = None,
        author: Author | None = None,
    ) -> Iterator[Act]:
        """Acts, the oldest first by time, then by id; for export.

        Args:
            sae: digest of its weights; None for all.
            kinds: of the acts; None for all.
            feature: number; None for all.
            author: None for all.
        """
        asked: list[ColumnElement[bool]] = []
        if sae is not None:
            asked.append(ACTS.c.sae == sae)
        if kinds is not None:
            asked.append(ACTS.c.kind.in_(kinds))
        if feature is not None:
            asked.append(ACTS.c.feature == feature)
        if author is not None:
            asked += [ACTS.c.author_kind == author.kind, ACTS.c.author == author.name]
        last: tuple[str, str] | None = None
        while True:  # page by page, so that a reader who takes long holds no transaction
            query = select(ACTS.c.at, ACTS.c.id, ACTS.c.said, ACTS.c.judgements).where(*asked)
            if last is not None:
                at, identifier = last
                query = query.where(or_(ACTS.c.at > at, and_(ACTS.c.at == at, ACTS.c.id > identifier)))
            with self.database.read() as connection:
                rows = connection.execute(query.order_by(ACTS.c.at, ACTS.c.id).limit(_CHUNK)).all()
            yield from map(_act, rows)
            if len(rows) < _CHUNK:
                return
            last = (rows[-1].at, rows[-1].id)

    def lists(self, *, author: str | None = None, sae: str | None = None) -> list[Listing]:
        """What is on people's lists now, the newest first.

        Args:
            author: name of the person; None for everybody's.
            sae: digest; None for all.
        """
        newest: dict[Any, Listing] = {}
        back: set[str] = set()
        for act in self.acts(sae, ("listing", "retract")):
            if isinstance(act, Retract):
                back.add(act.act)
            elif isinstance(act, Listing) and (author is None or act.author.name == author):
                newest[(act.sae, act.feature, act.place())] = act
        held = [one for one in newest.values() if one.listed and one.id not in back]
        return sorted(held, key=lambda one: (one.at, one.id), reverse=True)

    def saes(self) -> list[Summary]:
        """What the book holds of each SAE, the most acts first."""
        with self.database.read() as connection:
            total = select(ACTS.c.sae, func.count()).group_by(ACTS.c.sae)
            counts = {str(sae): int(count) for sae, count in connection.execute(total)}
            return sorted((self._summary(connection, *one) for one in counts.items()), key=lambda one: -one.acts)

    def summary(self, sae: str) -> Summary:
        """What the book holds of an SAE."""
        with self.database.read() as connection:
            count = connection.execute(select(func.count()).select_from(ACTS).where(ACTS.c.sae == sae)).scalar_one()
            return self._summary(connection, sae, int(count))

    def _summary(self, connection: Connection, sae: str, acts: int) -> Summary:
        totals = select(
            func.count(),
            func.count(NOW.c.feature.distinct()),
            func.coalesce(func.sum(case((NOW.c.conflict, 1), else_=0)), 0),
        ).where(NOW.c.sae == sae)
        labels, features, conflicts = connection.execute(totals).one()
        authors = (
            select(NOW.c.author_kind, NOW.c.author, func.count())
            .where(NOW.c.sae == sae)
            .group_by(NOW.c.author_kind, NOW.c.author)
            .order_by(func.count().desc(), NOW.c.author)
        )
        found = tuple((str(kind), str(name), int(count)) for kind, name, count in connection.execute(authors))
        return Summary(sae, acts, int(labels), int(features), int(conflicts), found)

    def every_label(self, sae: str) -> list[tuple[str, str]]:
        """(id, text) of all labels that were ever given, whether they hold or not, in the order in which this book heard of them: what is
        made of them can be kept, since labels are only ever added."""
        query = select(ACTS.c.id, ACTS.c.said).where(ACTS.c.sae == sae, ACTS.c.kind == "label").order_by(ACTS.c.number)
        with self.database.read() as connection:
            return [(row.id, str(row.said["text"])) for row in connection.execute(query)]

    def drawn_from(self, sae: str) -> str:
        """Changes whenever the input labels of an SAE do that hold; not with votes, comments or answers."""
        query = select(NOW.c.id).where(NOW.c.sae == sae, NOW.c.side == "input").order_by(NOW.c.id)
        with self.database.read() as connection:
            return digest_json(list(connection.scalars(query)))

    def version(self, sae: str | None = None) -> str:
        """Changes whenever something is added: the number of the newest act and how many there are."""
        query = select(func.coalesce(func.max(ACTS.c.number), 0), func.count())
        with self.database.read() as connection:
            newest, count = connection.execute(query if sae is None else query.where(ACTS.c.sae == sae)).one()
        return f"{newest}-{count}"


def _chunks(items: Sequence[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while part := list(islice(rest, _CHUNK)):
        yield part


def _row(identifier: str, act: Act) -> dict[str, Any]:
    said = act.model_dump(mode="json", exclude={"id", "judgements"})
    judgements = [one.to_dict() for one in act.judgements] if isinstance(act, Score) else None
    return {
        "id": identifier,
        "kind": act.kind,
        "sae": act.sae,
        "feature": act.feature,
        "author_kind": act.author.kind,
        "author": act.author.name,
        "at": act.at,
        "target": act.target,
        "said": said,
        "judgements": judgements,
    }


def _act(row: Any) -> Act:
    return read_act(row.said if row.judgements is None else {**row.said, "judgements": row.judgements})


def _without_id(said: dict[str, Any]) -> Act:
    """An act as it stands in the table; a score lacks its judgements, so that its id must be known from elsewhere."""
    return read_act(said)


def _current_row(held: HeldLabel) -> dict[str, Any]:
    label, score = held.label, held.score
    return {
        "id": held.id,
        "sae": label.sae,
        "feature": label.feature,
        "side": label.side,
        "author_kind": label.author.kind,
        "author": label.author.name,
        "method": label.method,
        "at": label.at,
        "text": label.text,
        "searched": f"{label.text} {label.explanation}".casefold(),
        "protocol": None if score is None else score.protocol,
        "value": None if score is None else score.value,
        "low": None if score is None else score.low,
        "up": held.up,
        "down": held.down,
        "flags": len(held.flags),
        "conflict": held.conflict,
        "held": held.model_dump(mode="json", exclude={"label": {"id"}}),
    }
