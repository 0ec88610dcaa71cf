"""Rows for the pass: from a store and from the model they are the same, at the same places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pass_parts import SMALL, MadeTokens, Notes, small_sae, state_bytes
from token_sets import tiny_model

from neuronmap.activations import ActivationStore, MaskConfig, RowOrigin, harvest
from neuronmap.errors import InputError, MismatchError
from neuronmap.features.collect.analyze import run_pass
from neuronmap.features.collect.rows import ModelRows, StoredRows, grid, places_of
from neuronmap.models import LanguageModel, resolve_hook

CONTEXTS, T = 11, 16
STRICT = MaskConfig(outlier_factor=1.02)  # drops nearly half: the places of the others must still be found


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model()


@pytest.fixture
def tokens() -> Any:
    return MadeTokens(CONTEXTS, T, vocabulary=40)


def stored(model: LanguageModel, tokens: Any, root: Path, mask: MaskConfig, layer: int = 1) -> ActivationStore:
    hook = resolve_hook(model, layer, "residual")
    return harvest(
        model, tokens, [hook], root=root, dtype="float32", mask=mask, batch_tokens=SMALL.block_tokens, progress=Notes()
    )[hook.name]


@pytest.mark.parametrize("mask", [MaskConfig(), STRICT, MaskConfig(outlier_factor=None, skip_special=False)])
def test_a_store_and_its_model_give_the_same_pass(
    mask: MaskConfig, model: LanguageModel, tokens: Any, tmp_path: Path
) -> None:
    hooks = [resolve_hook(model, layer, "residual") for layer in (0, 1)]
    from_model = ModelRows(model, tokens, hooks, mask=mask, progress=Notes())
    from_store = {h.name: StoredRows(stored(model, tokens, tmp_path, mask, h.layer or 0), tokens) for h in hooks}
    saes = {hook.name: small_sae("topk", 16, seed=hook.layer or 0) for hook in hooks}
    options: dict[str, Any] = {"config": SMALL, "progress": Notes()}
    states = run_pass(saes, from_model, hook_of={n: n for n in saes}, folder=tmp_path / "all", **options)
    for number, (name, rows) in enumerate(from_store.items()):
        assert rows.unit(name) == from_model.unit(name)  # so that the states can be compared
        alone = run_pass({name: saes[name]}, rows, hook_of={name: name}, folder=tmp_path / str(number), **options)
        one, other = (state_bytes(state) for state in (states[name], alone[name]))
        for its_own in (
            "plain",
            "sample.energy_N",
        ):  # digests; the mean is of all rows here, of the first contexts there
            del one[its_own], other[its_own]
        assert one == other
        assert states[name].rows == alone[name].rows > 20


@pytest.mark.parametrize("mask", [MaskConfig(), STRICT])
def test_blocks_say_where_their_rows_are(mask: MaskConfig, model: LanguageModel, tokens: Any, tmp_path: Path) -> None:
    store = stored(model, tokens, tmp_path, mask)
    rows = StoredRows(store, tokens)
    contexts_per_block, blocks = grid(tokens, SMALL.block_tokens)
    assert (contexts_per_block, blocks) == (2, 6)
    seen = 0
    for found in rows.blocks([3, 0, 5, 1, 4, 2], contexts_per_block):
        block = found[rows.hooks[0]]
        assert (block.first, block.stop) == (2 * block.index, min(2 * block.index + 2, CONTEXTS))
        assert ((block.sequence_B >= block.first) & (block.sequence_B < block.stop)).all()
        at = (block.sequence_B.astype(int), block.position_B.astype(int))
        assert (tokens.input_ids[at] == block.token_B).all()
        assert (np.diff(at[0] * T + at[1]) > 0).all()
        seen += len(block.token_B)
    assert seen == store.num_rows
    dropped = store.manifest["dropped"]["outliers"]
    assert (dropped > 30) == (mask is STRICT)


def test_the_unit_is_the_power_of_two_nearest_to_the_norm(model: LanguageModel, tokens: Any, tmp_path: Path) -> None:
    store = stored(model, tokens, tmp_path, MaskConfig())
    rows = StoredRows(store, tokens)
    norm = float(store.read(0, store.num_rows).double().square().sum(1).mean().sqrt())
    unit = rows.unit(rows.hooks[0])
    assert np.log2(unit) == round(np.log2(norm))
    torch.testing.assert_close(rows.mean(rows.hooks[0]), store.read(0, store.num_rows).double().mean(0))


def test_the_mean_of_a_model_is_that_of_its_first_contexts(model: LanguageModel, tokens: Any, tmp_path: Path) -> None:
    hook = resolve_hook(model, 1, "residual")
    rows = ModelRows(model, tokens, [hook], mask=STRICT, progress=Notes())
    store = stored(model, tokens, tmp_path, STRICT)  # all contexts are among the first 64
    torch.testing.assert_close(rows.mean(hook.name), store.statistics.mean_D, rtol=1e-5, atol=1e-6)
    assert f"{store.num_rows} rows" in rows.mean_from(hook.name)


def test_a_store_of_other_tokens_is_refused(model: LanguageModel, tokens: Any, tmp_path: Path) -> None:
    store = stored(model, tokens, tmp_path, MaskConfig())
    with pytest.raises(MismatchError, match="is of other tokens: 11 contexts of 16"):
        StoredRows(store, MadeTokens(CONTEXTS, T, vocabulary=39))  # type: ignore[arg-type]
    rows = StoredRows(store, tokens)
    with pytest.raises(InputError, match="no rows of hook point 'elsewhere'"):
        rows.unit("elsewhere")


def origin_of(tokens: Any, at: list[tuple[int, int]]) -> RowOrigin:
    columns = [[int(array[place]) for place in at] for array in (tokens.document, tokens.position, tokens.input_ids)]
    return RowOrigin(*(np.array(column, np.int32) for column in [*columns, [c for c, _ in at]]))


def test_separators_are_placed_between_their_neighbours() -> None:
    tokens: Any = MadeTokens(3, 12)
    mask = MaskConfig(skip_special=False, skip_first_positions=0)
    everywhere = [(c, t) for c in range(3) for t in range(12) if tokens.attention[c, t]]
    separator = (1, 9)
    assert tokens.special[separator]
    for missing in ((0, 4), separator, (1, 8)):
        at = [place for place in everywhere if place != missing]
        assert places_of(tokens, mask, 0, origin_of(tokens, at)).tolist() == [t for _, t in at]


def test_a_separator_that_cannot_be_told_from_another_is_refused() -> None:
    tokens: Any = MadeTokens(1, 12)
    tokens.document[0, 5:7], tokens.position[0, 5:7], tokens.input_ids[0, 5:7] = -1, -1, 0
    tokens.special[0, 5:7], tokens.attention[:] = True, True
    mask = MaskConfig(skip_special=False, skip_first_positions=0)
    origin = origin_of(tokens, [(0, t) for t in range(12) if t != 6])
    with pytest.raises(InputError, match="may be any of 2"):
        places_of(tokens, mask, 0, origin)


def test_rows_of_other_contexts_are_refused() -> None:
    tokens: Any = MadeTokens(3, 12)
    mask = MaskConfig()
    at = [(c, t) for c in range(3) for t in range(1, 12) if tokens.attention[c, t] and not tokens.special[c, t]]
    assert places_of(tokens, mask, 0, origin_of(tokens, at)).tolist() == [t for _, t in at]
    wrong = origin_of(tokens, at)
    wrong.token_id[4] += 1
    with pytest.raises(MismatchError, match="not of the tokens at hand"):
        places_of(tokens, mask, 0, wrong)
    fewer = origin_of(tokens, at[1:])
    fewer.document[3] = 77
    with pytest.raises(MismatchError, match="not of the tokens at hand"):
        places_of(tokens, mask, 0, fewer)
