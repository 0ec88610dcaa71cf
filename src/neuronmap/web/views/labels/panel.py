"""Everything that was said of one feature, as its page shows it: all labels side by side, and who said what when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from neuronmap.interpretation.labels.acts import BOOKMARKS, Act, Comment, Flag, Listing, Retract, Vote
from neuronmap.web.views.labels.who import Who

if TYPE_CHECKING:
    from neuronmap.interpretation.labels.book import LabelBook
    from neuronmap.interpretation.labels.held import HeldFlag, HeldLabel, HeldScore, Said
    from neuronmap.web.opened import Home

__all__ = [
    "LabelPanel",
    "PastAct",
    "ShownComment",
    "ShownFlag",
    "ShownLabel",
    "ShownScore",
    "label_panel",
    "shown_label",
]

_MOST_PAST = 200


class ShownScore(BaseModel):
    """A score of a label."""

    id: str = Field(description="Of the act; it has every judgement.")
    protocol: str
    value: float | None
    low: float | None = Field(description="95 % interval.")
    high: float | None
    by: str = Field(description="Who judged.")
    at: str
    figures: dict[str, Any] = Field(description="Recall by group, false positives by kind of negative, baselines.")


class ShownComment(BaseModel):
    """A remark."""

    id: str
    text: str
    by: str
    at: str
    on: str | None = Field(description="The label or comment; null for the feature.")


class ShownFlag(BaseModel):
    """A flag that is raised."""

    id: str
    reason: str
    by: str
    at: str


class ShownLabel(BaseModel):
    """A label that holds."""

    id: str
    feature: int
    side: str = Field(description="input or output.")
    text: str
    explanation: str
    by: str
    author_kind: str = Field(description="person, model or rule.")
    method: str
    at: str
    scores: list[ShownScore]
    up: int = Field(description="Votes for it, without its author's own.")
    down: int
    voted: dict[str, int] = Field(description="Votes by name.")
    flags: list[ShownFlag]
    comments: list[ShownComment] = Field(default_factory=list)
    disputed: bool = Field(description="Whether somebody voted against it, or calls the feature something else.")
    wordings: int = Field(description="How many wordings it had, this one included.")

    @property
    def score(self) -> ShownScore | None:
        """The one for tables."""
        return next((one for one in self.scores if one.value is not None), None)


class PastAct(BaseModel):
    """Something that was said."""

    id: str
    kind: str
    by: str
    author_kind: str
    at: str
    said: str = Field(description="In words.")
    holds: bool = Field(description="Whether it was neither replaced nor taken back.")


class LabelPanel(BaseModel):
    """Everything that was said of a feature."""

    sae: str = Field(description="Digest of the weights of its SAE.")
    feature: int
    labels: list[ShownLabel] = Field(description="That hold, the one for tables first.")
    comments: list[ShownComment] = Field(description="On the feature itself.")
    flags: list[ShownFlag] = Field(description="On the feature itself.")
    lists: list[str] = Field(description="Lists of the asker that it is on.")
    listed_by: dict[str, list[str]] = Field(description="Others' lists that it is on, by name.")
    history: list[PastAct] = Field(description="Everything, the newest first; at most 200.")
    who: str = Field(description="The asker's name; empty where it is not known.")
    fixed: bool = Field(description="Whether the name is that of an account.")
    act: str = Field(
        default="", description="Takes a POST: what somebody says of the feature; empty where nothing can be said."
    )
    page: str = Field(default="", description="The feature's page.")
    table: str = Field(default="", description="All labels of the SAE; empty where there is no such page.")

    @property
    def bookmarked(self) -> bool:
        """Whether it is among the asker's bookmarks."""
        return BOOKMARKS in self.lists

    @property
    def disputed(self) -> bool:
        """Whether somebody disagrees."""
        return any(label.disputed for label in self.labels)

    def mine(self, by: str, kind: str = "person") -> bool:
        """Whether something is the asker's own."""
        return kind == "person" and bool(self.who) and by == self.who


def label_panel(book: LabelBook | None, sae: str, feature: int, who: Who, home: Home | None = None) -> LabelPanel:
    """The panel of a feature.

    Args:
        book: where it is written; None where nobody has said anything yet.
        sae: digest of the weights.
        feature: its number.
        who: who looks.
        home: where the feature's page is; None for the answer to a script.
    """
    panel = LabelPanel(
        sae=sae, feature=feature, labels=[], comments=[], flags=[], lists=[], listed_by={}, history=[],
        who=who.name, fixed=who.fixed,
    )  # fmt: skip
    if home is not None and sae:
        panel.page, panel.act = home.path("feature", feature), home.path("feature", feature, "said")
        panel.table = "" if home.alone else home.path("labels")
    return panel if book is None or not sae else _filled(panel, book.said(sae, feature))


def _filled(panel: LabelPanel, said: Said) -> LabelPanel:
    comments = [
        ShownComment(id=at, text=one.text, by=one.author.name, at=one.at, on=one.on) for at, one in said.comments
    ]
    threads = _threads(comments)
    panel.labels = [shown_label(held, threads.get(held.id, [])) for held in said.labels]
    shown = {one.id for label in panel.labels for one in label.comments}
    panel.comments = [one for one in comments if one.id not in shown and not _about_past_label(one, said)]
    panel.flags = [_flag(one) for one in said.flags]
    for one in said.listings:
        if one.author.name == panel.who:
            panel.lists.append(one.name)
        else:
            panel.listed_by.setdefault(one.author.name, []).append(one.name)
    standing = said.standing
    panel.history = [
        PastAct(
            id=kept.id,
            kind=kept.act.kind,
            by=kept.act.author.name,
            author_kind=kept.act.author.kind,
            at=kept.act.at,
            said=_in_words(kept.act, standing.by_id),
            holds=standing.holds(kept.id),
        )
        for kept in reversed(standing.all[-_MOST_PAST:])
    ]
    return panel


def _threads(comments: list[ShownComment]) -> dict[str, list[ShownComment]]:
    """Comments by the label that they, or what they answer, are about."""
    by_id = {one.id: one for one in comments}
    found: dict[str, list[ShownComment]] = {}
    for one in comments:
        about, seen = one.on, 0
        while about in by_id and seen < len(by_id):
            about, seen = by_id[about].on, seen + 1
        if about is not None:
            found.setdefault(about, []).append(one)
    return found


def _about_past_label(comment: ShownComment, said: Said) -> bool:
    """Whether it is about a label that does not hold any more: then it stands in the history alone."""
    target = said.standing.by_id.get(comment.on or "")
    return target is not None and target.kind == "label"


def shown_label(held: HeldLabel, comments: list[ShownComment] | None = None) -> ShownLabel:
    """A label as pages show it."""
    label = held.label
    return ShownLabel(
        id=held.id,
        feature=label.feature,
        side=label.side,
        text=label.text,
        explanation=label.explanation,
        by=label.author.name,
        author_kind=label.author.kind,
        method=label.method,
        at=label.at,
        scores=[_score(one) for one in held.scores],
        up=held.up,
        down=held.down,
        voted={one.author.name: one.value for one in held.votes},
        flags=[_flag(one) for one in held.flags],
        comments=comments or [],
        disputed=held.conflict,
        wordings=held.wordings,
    )


def _score(one: HeldScore) -> ShownScore:
    return ShownScore(
        id=one.id,
        protocol=one.protocol,
        value=one.value,
        low=one.low,
        high=one.high,
        by=one.author.name,
        at=one.at,
        figures=one.figures,
    )


def _flag(one: HeldFlag) -> ShownFlag:
    return ShownFlag(id=one.id, reason=one.reason, by=one.author.name, at=one.at)


def _in_words(act: Act, known: dict[str, Act]) -> str:
    """What an act says, for the history."""
    values = act.model_dump(exclude={"id", "judgements", "figures", "evidence"})
    about = known.get(act.target or "")
    named = getattr(about, "text", None) or (about.kind if about is not None else "something that is not here")
    if isinstance(act, Vote):
        return f"{('against', 'neither for nor against', 'for')[act.value + 1]}: {named}"
    if isinstance(act, Retract):
        return f"took back: {named}"
    if isinstance(act, Listing):
        return f"{'put on' if act.listed else 'took off'} the list {act.name}"
    if isinstance(act, Flag):
        return f"{'flagged' if act.raised else 'took the flag down from'} {'the feature' if act.on is None else named}: {act.reason}"
    if isinstance(act, Comment):
        return act.text if act.on is None else f"on {named}: {act.text}"
    if act.kind == "score":
        value = values["value"]
        return f"{values['protocol']} {'no figure' if value is None else f'{value:.2f}'} for {named}"
    return f"{values['text']}{' (output)' if values['side'] == 'output' else ''}, {values['method']}"
