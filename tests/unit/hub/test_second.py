"""Which SAEs the stability suite may hold against each other, as far as they tell where they are from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from neuronmap.errors import ConfigError, MismatchError
from neuronmap.hub import LibraryEntry
from neuronmap.hub.evaluating import check_second


def entry(name: str, seed: int | None = 0, **facts: Any) -> LibraryEntry:
    told = {"model": "gpt2", "hook": "transformer.h.2:out", **facts}
    return LibraryEntry(id=name, path=Path(name), training=None if seed is None else {"seed": seed}, **told)


def test_another_seed_at_the_same_hook_is_what_it_is_for() -> None:
    check_second(entry("a"), entry("b", seed=1))


def test_what_began_from_the_same_seed_finds_its_start_again_and_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'a' and 'b' were both trained from seed 0"):
        check_second(entry("a"), entry("b", d_sae=512))
    with pytest.raises(ConfigError, match="cannot be compared with itself"):
        check_second(entry("a"), entry("a"))


@pytest.mark.parametrize("facts", [{"hook": "transformer.h.3:out"}, {"model": "gpt2-medium"}])
def test_other_activations_are_refused(facts: dict[str, str]) -> None:
    with pytest.raises(MismatchError, match="different activations"):
        check_second(entry("a"), entry("b", seed=1, **facts))


def test_saes_from_elsewhere_do_not_tell_and_are_let_pass() -> None:
    check_second(entry("a"), entry("b", seed=None))
    check_second(entry("a", seed=None), entry("b", seed=None, hook=None, model=None))
