"""Processes that harvest together, here threads: what is off the grid of batches, and what is there already.

Real processes harvest together in tests/unit/training/parallel.
"""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from test_harvest import folder_bytes
from token_sets import Notes, PlainTokens

from neuronmap.activations import ActivationStore, extract, harvest
from neuronmap.activations.together import harvest_together
from neuronmap.errors import InputError, NeuronMapError
from neuronmap.models import LanguageModel, capture, resolve_hook

CREW = 3


class Threads:
    """One of a crew of threads."""

    def __init__(self, rank: int, told: list[queue.Queue[Any]], post: dict[tuple[int, int], queue.Queue[Any]]) -> None:
        self.rank, self.count, self._told, self._post = rank, CREW, told, post

    def from_first(self, make: Callable[[], Any]) -> Any:
        if self.rank:
            value, well = self._told[self.rank].get(timeout=30)
            if not well:
                raise NeuronMapError("The first failed.")
            return value
        given: tuple[Any, bool] = (None, False)
        try:
            given = (make(), True)
        finally:
            for one in self._told[1:]:
                one.put(given)
        return given[0]

    def hand(self, value: Any, to: int) -> None:
        self._post[self.rank, to].put(value)

    def take(self, sender: int) -> Any:
        return self._post[sender, self.rank].get(timeout=30)


def by_crew(models: list[LanguageModel], tokens: PlainTokens, root: Path, **settings: Any) -> list[Any]:
    """What each of the crew gets: its stores, or its error."""
    told: list[queue.Queue[Any]] = [queue.Queue() for _ in range(CREW)]
    post = {(one, other): queue.Queue[Any]() for one in range(CREW) for other in range(CREW)}

    def work(rank: int) -> Any:
        model = models[rank]
        hooks = [resolve_hook(model, 0, "mlp"), resolve_hook(model, 1)]
        try:
            return harvest_together(Threads(rank, told, post), model, tokens, hooks, root=root, **settings)
        except NeuronMapError as error:
            return error

    with ThreadPoolExecutor(CREW) as pool:
        return list(pool.map(work, range(CREW)))


@pytest.fixture
def begun(model: LanguageModel, tokens: PlainTokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of two stores, five contexts of it, in batches of one: off the grid of batches of two."""
    root, left = tmp_path / "begun", [6]  # one call calibrates

    def limited(*arguments: Any, **more: Any) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return capture(*arguments, **more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012 (patched within)
        patch.setattr(extract, "capture", limited)
        harvest(model, tokens, [resolve_hook(model, 1)], root=root, batch_tokens=16, shard_rows=41, progress=Notes())
    return root


def test_a_store_off_the_grid_goes_on_as_in_one_process(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path, begun: Path
) -> None:
    shutil.copytree(begun, tmp_path / "alone")
    settings = {"batch_tokens": 32, "shard_rows": 41, "progress": Notes()}
    hooks = [resolve_hook(model, 0, "mlp"), resolve_hook(model, 1)]
    alone = harvest(model, tokens, hooks, root=tmp_path / "alone", **settings)
    for stores in by_crew([model] * CREW, tokens, begun, **settings):
        assert {name: folder_bytes(store.path) for name, store in stores.items()} == {
            name: folder_bytes(store.path) for name, store in alone.items()
        }


def test_what_is_there_is_opened_by_all_without_the_model(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"batch_tokens": 32, "progress": Notes()}
    by_crew([model] * CREW, tokens, tmp_path, **settings)
    monkeypatch.setattr(extract, "capture", lambda *_, **__: pytest.fail("the model ran"))
    for stores in by_crew([model] * CREW, tokens, tmp_path, **settings):
        assert all(isinstance(store, ActivationStore) and store.num_rows for store in stores.values())


def test_the_first_is_told_what_another_could_not_do(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the others that it failed; nobody waits for anybody afterwards."""
    first = threading.Event()

    def failing(*arguments: Any, **more: Any) -> Any:
        if first.is_set() and arguments[1].shape[0] == 2 and (arguments[1] == broken).all():
            raise InputError("This batch is broken.", hint="Mend it.")
        first.set()
        return capture(*arguments, **more)

    broken = torch.from_numpy(tokens.input_ids[8:10])  # the fifth batch: the second process's second
    monkeypatch.setattr(extract, "capture", failing)
    given = by_crew([model] * CREW, tokens, tmp_path, batch_tokens=32, progress=Notes())
    assert isinstance(given[0], InputError)
    assert given[0].hint == "Mend it."
    assert [type(error) for error in given[1:]] == [NeuronMapError] * 2
