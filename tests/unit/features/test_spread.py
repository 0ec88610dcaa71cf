"""A pass whose blocks are done elsewhere: the bytes of one that does them itself, in any order, stopped, and continued by either."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pass_parts import SMALL, MadeRows, Notes, small_sae, state_bytes

from neuronmap.engines import cut
from neuronmap.errors import Interrupted, MismatchError
from neuronmap.features.collect.analyze import States, run_blocks, run_pass

SAES = {"a": small_sae("topk", 12), "b": small_sae("relu", 8)}
HOOKS = {"a": "wide", "b": "plain"}
OPTIONS: dict[str, Any] = {"hook_of": HOOKS, "config": SMALL, "progress": Notes()}
IDENTITIES = {"a": "digest of a", "b": "digest of b"}


class Elsewhere:
    """Does shards of two blocks one after the other, the last first; stops after some."""

    def __init__(self, stop_after: int = 99) -> None:
        self.stop_after, self.done, self.shown = stop_after, [], 0

    def __call__(
        self, blocks: Sequence[int], advance: Callable[[int, str], None], stopped: Callable[[], bool]
    ) -> Iterator[tuple[Sequence[int], States]]:
        for part in reversed(cut(blocks, 3)):
            if len(self.done) == self.stop_after:
                return
            states = run_blocks(
                SAES, MadeRows(), part, hook_of=HOOKS, config=SMALL, identities=IDENTITIES, progress=Notes()
            )
            self.done.append(part)
            advance(len(part), "3.0")
            yield part, states


def passed(folder: Path, **options: Any) -> dict[str, dict[str, bytes]]:
    states = run_pass(SAES, MadeRows(), folder=folder, identities=IDENTITIES, **{**OPTIONS, **options})
    return {name: state_bytes(state) for name, state in states.items()}


def test_blocks_done_elsewhere_give_the_same_bytes(tmp_path: Path) -> None:
    elsewhere = Elsewhere()
    assert passed(tmp_path / "spread", spread=elsewhere) == passed(tmp_path / "whole")
    assert elsewhere.done == [(3, 4), (1, 2), (0,)]


@pytest.mark.parametrize("first_elsewhere", [True, False])
def test_what_one_engine_began_the_other_goes_on_with(first_elsewhere: bool, tmp_path: Path) -> None:
    first, second = Elsewhere(stop_after=1), Elsewhere()
    with pytest.raises(Interrupted, match="after 2 of 5 blocks"):
        passed(tmp_path / "cut", **({"spread": first} if first_elsewhere else {"progress": Notes(2)}))
    notes = Notes()
    assert passed(tmp_path / "cut", progress=notes, **({} if first_elsewhere else {"spread": second})) == passed(
        tmp_path / "whole"
    )
    assert "2 of 5 blocks are done" in notes.lines[0]
    assert second.done == ([] if first_elsewhere else [(4,), (3,), (2,)])


def test_an_sae_that_is_ahead_of_another_is_not_counted_twice(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        passed(tmp_path / "cut", spread=Elsewhere(stop_after=1))
    (tmp_path / "cut" / "1" / "state.json").unlink()  # killed before its first save of the second
    assert passed(tmp_path / "cut", spread=Elsewhere()) == passed(tmp_path / "whole")


def test_states_of_other_weights_are_not_taken(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="sae_digest"):
        run_pass(SAES, MadeRows(), folder=tmp_path, identities={**IDENTITIES, "a": "x"}, spread=Elsewhere(), **OPTIONS)


def test_the_first_block_is_read_once_to_know_how_many_contexts_are_sampled(tmp_path: Path) -> None:
    options: dict[str, Any] = {"hook_of": HOOKS, "config": SMALL, "identities": IDENTITIES, "progress": Notes()}
    first, again = MadeRows(), MadeRows()
    told = run_blocks(SAES, first, [3], **options)
    assert first.read == [0, 3]
    sampled = {name: state.facts["sample_contexts"] for name, state in told.items()}
    states = run_blocks(SAES, again, [3], sampled=sampled, **options)
    assert again.read == [3]
    assert {name: state_bytes(state) for name, state in states.items()} == {
        name: state_bytes(state) for name, state in told.items()
    }
