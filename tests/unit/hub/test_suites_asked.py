"""What is refused before anything is measured: SAEs that stability cannot hold against each other, and forms that SAEBench has not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from neuronmap.errors import ConfigError, MismatchError
from neuronmap.hub import LibraryEntry, evaluating
from neuronmap.hub.evaluating import check_saebench, check_second


@pytest.fixture(autouse=True)
def digests(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Digests of language models by SAE, which bundles on disk hold; none is known unless a test says so."""
    known: dict[str, str] = {}
    monkeypatch.setattr(evaluating, "model_digest", lambda one: known.get(one.id))
    return known


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
    check_second(entry("a"), entry("b", seed=1, **facts), force=True)


def test_one_model_may_have_two_names(digests: dict[str, str]) -> None:
    digests |= {"a": "sha256:1", "b": "sha256:1", "c": "sha256:2"}
    check_second(entry("a"), entry("b", seed=1, model="/models/gpt2"))
    with pytest.raises(MismatchError, match="model gpt2 and gpt2"):
        check_second(entry("a"), entry("c", seed=1))


def test_saes_from_elsewhere_do_not_tell_and_are_let_pass() -> None:
    check_second(entry("a"), entry("b", seed=None))
    check_second(entry("a", seed=None), entry("b", seed=None, hook=None, model=None))


def test_forms_that_saebench_has_not_are_refused_before_the_work() -> None:
    with pytest.raises(ConfigError, match="none of them was asked for"):
        check_saebench(("structure", "stability"), Path("bench"))
    with pytest.raises(ConfigError, match="2 documents: core, absorption_first_letter"):
        check_saebench(("core", "absorption", "structure"), Path("bench.json"))
    check_saebench(("core", "absorption"), Path("bench"))
    check_saebench(("core", "structure"), Path("bench.json"))
    check_saebench(("tpp",), Path("bench.json"))  # an unknown suite is another refusal's to name
