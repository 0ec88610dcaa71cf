"""What may be about what: a vote about a label, a new wording of one's own label, taking back what oneself has said."""

from __future__ import annotations

from neuronmap.errors import InputError
from neuronmap.interpretation.labels.acts import Act, Label, Retract, Score, Verdict, Vote
from neuronmap.interpretation.labels.held import is_rewording

__all__ = ["require_sense"]


def require_sense(act: Act, target: str, found: Act | None) -> None:
    """Whether an act may be about another.

    Raises:
        InputError: it may not.
    """
    if found is None:
        raise InputError(
            f"The {act.kind} is about {target}, which is not in this book.",
            hint="Import that label first, or merge: what is about unknown labels is kept, and counts when they come.",
        )
    if (found.sae, found.feature) != (act.sae, act.feature):
        raise InputError(f"The {act.kind} of feature {act.feature} is about a {found.kind} of feature {found.feature}.")
    if isinstance(act, Retract):
        if found.author != act.author:
            raise InputError(f"The {found.kind} is {found.author.name}'s; {act.author.name} cannot take it back.")
        if isinstance(found, Retract):
            raise InputError("What was taken back stays so: say it again instead.")
    elif isinstance(act, Label):
        if not is_rewording(act, found):
            raise InputError(
                f"{act.author.name} can reword own labels only, on the same side; that one is a {found.kind} by {found.author.name}.",
                hint="Add a label of your own beside it.",
            )
    elif isinstance(act, Score | Vote | Verdict) and not isinstance(found, Label):
        raise InputError(f"A {act.kind} is about a label; {target} is a {found.kind}.")
