"""The whole record: of made-up layers, of small models, of two models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from layer_words import WORDS
from torch import Tensor

from neuronmap.abstraction.layers.cka import cka
from neuronmap.abstraction.layers.scaling import standardized
from neuronmap.abstraction.layers.similarity import compare_layers, layer_similarity
from neuronmap.abstraction.record import LayerSimilarity
from neuronmap.corpora import TokenSet, tokenize
from neuronmap.errors import InputError
from neuronmap.models import LanguageModel
from neuronmap.progress import SilentProgress

QUIET = SilentProgress()
MATRICES = ("cka", "cka_standardized", "cka_error", "mutual_knn", "procrustes", "predictivity")


def gaussian(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def drifting(layers: int = 5, rows: int = 120, width: int = 12, new: float = 0.5) -> Tensor:
    x = [gaussian(rows, width)]
    for layer in range(1, layers):
        x.append((1 - new**2) ** 0.5 * x[-1] + new * gaussian(rows, width, seed=layer))
    return torch.stack(x)


@pytest.fixture(scope="module")
def tokens(tiny_tokenizer: Any) -> TokenSet:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 40)) + "." for _ in range(60)]
    return tokenize(texts, tiny_tokenizer, context_length=32, part="all", cache=False, progress=QUIET)


def shapes(found: LayerSimilarity) -> set[tuple[int, int]]:
    return {(len(getattr(found, name)), len(getattr(found, name)[0])) for name in MATRICES}


def test_a_record_of_layers_that_drift() -> None:
    x_LNW = drifting()
    found = compare_layers(x_LNW, layers=[0, 2, 4, 6, 8], text="made up", progress=QUIET)
    assert (found.rows, found.layers, found.other_layers, found.other_model) == (
        120,
        [0, 2, 4, 6, 8],
        [0, 2, 4, 6, 8],
        None,
    )
    assert shapes(found) == {(5, 5)}
    for name in ("cka", "cka_standardized", "mutual_knn", "procrustes"):
        matrix = np.array(getattr(found, name), float)
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
        np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-5)
        assert matrix[0, 1] > matrix[0, 4]
    assert found.cka[1][3] == pytest.approx(cka(x_LNW[1], x_LNW[3]), abs=1e-5)
    assert found.cka_standardized[1][3] == pytest.approx(cka(standardized(x_LNW[1]), standardized(x_LNW[3])), abs=1e-5)
    assert found.cka_error[0][0] == pytest.approx(0, abs=1e-6)
    assert 0.001 < found.cka_error[0][4] < 0.1
    assert found.blocks == [0]
    assert found.first_position_norm == [None] * 5
    assert LayerSimilarity.from_dict(found.to_dict()) == found


def test_planted_blocks_are_named_by_layer() -> None:
    groups = [drifting(4, rows=200, new=0.15), gaussian(1, 200, 12, seed=50) + drifting(6, rows=200, new=0.15) * 0.3]
    found = compare_layers(torch.cat(groups), layers=list(range(3, 13)), progress=QUIET)
    assert (found.blocks, found.block_support) == ([3, 7], [1.0, 1.0])


def test_batches_of_rows_agree_with_all_rows_at_once() -> None:
    x_LNW = drifting(rows=300)
    whole, parts = (compare_layers(x_LNW, batch_rows=rows, progress=QUIET) for rows in (1000, 100))
    np.testing.assert_allclose(np.array(parts.cka, float), np.array(whole.cka, float), atol=0.03)
    np.testing.assert_allclose(np.array(parts.cka_error, float), np.array(whole.cka_error, float), atol=0.01)


def test_a_constant_layer_is_null_and_the_others_are_as_without_it() -> None:
    x_LNW = drifting()
    flat_LNW = torch.cat([x_LNW[:2], torch.full((1, 120, 12), 7.0), x_LNW[2:]])
    found, without = (compare_layers(x, progress=QUIET) for x in (flat_LNW, x_LNW))
    kept = [0, 1, 3, 4, 5]
    for name in MATRICES:
        matrix = getattr(found, name)
        assert matrix[2] == [None] * 6
        assert [row[2] for row in matrix] == [None] * 6
        here = [[matrix[row][column] for column in kept] for row in kept]
        np.testing.assert_allclose(np.array(here, float), np.array(getattr(without, name), float), atol=1e-6)
    assert (found.intrinsic_dimension[2].value, found.participation_ratio[2]) == (None, None)
    assert found.intrinsic_dimension[2].reason is not None


def test_concept_directions() -> None:
    directions_LKW = torch.eye(12)[:2].repeat(5, 1, 1)
    directions_LKW[4] = torch.eye(12)[2:4]
    found = compare_layers(drifting(), directions_LKW=directions_LKW, progress=QUIET)
    assert found.concept_overlap is not None
    assert found.concept_overlap[0] == pytest.approx([1, 1, 1, 1, 0], abs=1e-9)
    assert compare_layers(drifting(), progress=QUIET).concept_overlap is None


def test_shapes_that_do_not_belong_together() -> None:
    with pytest.raises(InputError, match="at least 64"):
        compare_layers(drifting(rows=50), progress=QUIET)
    with pytest.raises(InputError, match="same tokens"):
        compare_layers(drifting(), y_MNV=drifting(rows=121), progress=QUIET)
    with pytest.raises(InputError, match="names 2 layers"):
        compare_layers(drifting(), layers=[0, 1], progress=QUIET)
    with pytest.raises(InputError, match="Directions"):
        compare_layers(drifting(), directions_LKW=torch.ones(2, 2, 12), progress=QUIET)


def test_a_small_model_and_its_seed(tiny_llama: LanguageModel, tokens: TokenSet) -> None:
    one, again, other = (
        layer_similarity(tiny_llama, tokens, contexts=80, seed=seed, progress=QUIET) for seed in (1, 1, 2)
    )
    assert one == again
    assert one.cka != other.cka
    assert (one.rows, one.layers, shapes(one)) == (80, [0, 1, 2, 3, 4], {(5, 5)})
    assert one.text == "texts/all"
    assert all(norm is not None and norm > 0 for norm in one.first_position_norm)


def test_a_huge_first_position_changes_nothing_but_its_norm(tiny_llama: LanguageModel, tokens: TokenSet) -> None:
    plain = layer_similarity(tiny_llama, tokens, contexts=80, progress=QUIET)

    def blow_up(_module: Any, _args: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        first = first.clone()
        first[:, 0] *= 1000
        return (first, *output[1:]) if isinstance(output, tuple) else first

    handle = tiny_llama.blocks.modules[-1].register_forward_hook(blow_up)
    try:
        sunk = layer_similarity(tiny_llama, tokens, contexts=80, progress=QUIET)
    finally:
        handle.remove()
    assert sunk.first_position_norm[4] == pytest.approx(1000 * plain.first_position_norm[4], rel=1e-4)
    assert sunk.updated(first_position_norm=plain.first_position_norm) == plain


def test_an_encoder(tiny_bert: LanguageModel, tokens: TokenSet) -> None:
    found = layer_similarity(tiny_bert, tokens, contexts=70, progress=QUIET)
    assert (found.layers, shapes(found)) == ([0, 1, 2], {(3, 3)})


def test_two_models_of_different_widths_and_tokenizers(
    tiny_llama: LanguageModel, coarse_gpt2: LanguageModel, tokens: TokenSet
) -> None:
    found = layer_similarity(
        tiny_llama, tokens, other=coarse_gpt2, other_layers=[0, 3], contexts=80, first=4, progress=QUIET
    )
    assert (found.layers, found.other_layers, found.other_model) == ([0, 1, 2, 3, 4], [0, 3], "coarse-gpt2")
    assert shapes(found) == {(5, 2)}
    assert len(found.participation_ratio) == len(found.intrinsic_dimension) == 5
    # both embeddings know which word it is
    assert found.cka_standardized[0][0] > 0.3
    assert found.mutual_knn[0][0] > 0.3


def test_a_model_against_itself_is_the_comparison_within_it(tiny_gpt2: LanguageModel, tokens: TokenSet) -> None:
    within = layer_similarity(tiny_gpt2, tokens, contexts=80, progress=QUIET)
    between = layer_similarity(tiny_gpt2, tokens, other=tiny_gpt2, contexts=80, progress=QUIET)
    for name in MATRICES:
        np.testing.assert_allclose(
            np.array(getattr(between, name), float), np.array(getattr(within, name), float), atol=1e-5
        )
    assert (between.blocks, between.block_support) == (within.blocks, within.block_support)


def test_too_little_text(tiny_llama: LanguageModel, tiny_tokenizer: Any) -> None:
    few = tokenize([" ".join(WORDS)], tiny_tokenizer, context_length=16, part="all", cache=False, progress=QUIET)
    with pytest.raises(InputError, match="at least 64"):
        layer_similarity(tiny_llama, few, progress=QUIET)
