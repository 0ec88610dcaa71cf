"""Which tokens are read: never the first, special or padding; one a context; for two tokenizers the end of the same word."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from layer_words import WORDS

from neuronmap.abstraction.layers.windows import draw_shared_windows, draw_windows
from neuronmap.corpora import TokenSet, tokenize
from neuronmap.errors import EmptyCorpusError, InputError
from neuronmap.progress import SilentProgress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from neuronmap.models import LanguageModel


def texts(count: int = 60, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 30)) + ". é" for _ in range(count)]


def token_set(tokenizer: Any, documents: list[str] | None = None, length: int = 48, **options: Any) -> TokenSet:
    return tokenize(
        texts() if documents is None else documents,
        tokenizer,
        context_length=length,
        part="all",
        cache=False,
        progress=SilentProgress(),
        **options,
    )


def test_one_token_of_each_context_within_the_window(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = token_set(tiny_tokenizer)
    windows = draw_windows(tokens, contexts=40, seed=3)
    assert len({window.context for window in windows}) == len(windows) == 40
    special = set(tiny_tokenizer.all_special_ids)
    for window in windows:
        (read,) = window.reads
        assert 8 <= read < 32 == len(window.ids)
        assert window.ids[read] not in special
        assert window.ids == tuple(tokens.contexts(window.context, window.context + 1).input_ids[0, :32].tolist())
    assert draw_windows(tokens, contexts=40, seed=3) == windows
    assert draw_windows(tokens, contexts=40, seed=4) != windows


def test_positions_are_uniform(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    windows = draw_windows(token_set(tiny_tokenizer, texts(900), length=32), contexts=1200)
    counts = Counter(window.reads[0] for window in windows)
    assert set(counts) == set(range(8, 32))
    assert max(counts.values()) < 2.2 * min(counts.values())


def test_further_windows_of_a_context_come_when_there_are_too_few(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = token_set(tiny_tokenizer, texts(20), length=65, prepend_bos=True)
    windows = draw_windows(tokens, contexts=10_000, window=17)
    assert len(windows) == 4 * len(tokens)  # 64 tokens and BOS: four of 16 and BOS
    assert set(Counter(window.context for window in windows).values()) == {4}
    assert {window.ids[0] for window in windows} == {tiny_tokenizer.bos_token_id}
    first = [window for window in windows if window.context == 2]
    assert sum((window.ids[1:] for window in first), ()) == tuple(tokens.contexts(2, 3).input_ids[0, 1:].tolist())


def test_padding_and_separators_are_never_read(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    short = token_set(tiny_tokenizer, ["river and winter"] * 3, length=128)
    assert short.report.padding_tokens > 0
    for seed in range(30):
        (window,) = draw_windows(short, window=128, seed=seed)
        assert len(window.ids) == short.num_tokens
        assert window.ids[window.reads[0]] not in tiny_tokenizer.all_special_ids


def test_two_tokens_of_a_context(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    windows = draw_windows(token_set(tiny_tokenizer), contexts=20, per_context=2)
    assert all(8 <= window.reads[0] < window.reads[1] < 32 for window in windows)


def test_numbers_out_of_range_and_no_text(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = token_set(tiny_tokenizer)
    for options in ({"contexts": 0}, {"per_context": 3}, {"window": 1}, {"first": 0}):
        with pytest.raises(InputError, match=next(iter(options))):
            draw_windows(tokens, **options)
    with pytest.raises(EmptyCorpusError, match="beyond the first"):
        draw_windows(token_set(tiny_tokenizer, ["a"], length=8))


def test_models_with_one_tokenizer_read_the_same_tokens(tiny_llama: LanguageModel, tiny_gpt2: LanguageModel) -> None:
    mine, theirs = draw_shared_windows(token_set(tiny_llama.tokenizer), tiny_llama, tiny_gpt2, contexts=20)
    assert mine == theirs


def test_models_with_two_tokenizers_read_the_end_of_the_same_word(
    tiny_llama: LanguageModel, coarse_gpt2: LanguageModel
) -> None:
    tokens = token_set(tiny_llama.tokenizer)
    mine, theirs = draw_shared_windows(tokens, tiny_llama, coarse_gpt2, contexts=40, window=48, first=3, seed=1)
    assert len(mine) == len(theirs) == 40
    assert any(one.reads != other.reads for one, other in zip(mine, theirs, strict=True))
    for one, other in zip(mine, theirs, strict=True):
        assert one.context == other.context
        read = [
            model.tokenizer.decode(window.ids[: window.reads[0] + 1])
            for model, window in ((tiny_llama, one), (coarse_gpt2, other))
        ]
        assert read[0] == read[1].removeprefix("<s>")
        assert read[0][-1].isalnum()
        rest = tiny_llama.tokenizer.decode(one.ids[one.reads[0] + 1 :])
        assert not rest[:1].isalnum()
        assert min(one.reads[0], other.reads[0]) >= 2
        assert other.ids[0] == coarse_gpt2.tokenizer.bos_token_id  # this tokenizer puts it there by itself


def test_a_model_without_a_tokenizer_cannot_share_text(tiny_llama: LanguageModel, coarse_gpt2: LanguageModel) -> None:
    from neuronmap.models import wrap_model

    with pytest.raises(InputError, match="no tokenizer"):
        draw_shared_windows(
            token_set(tiny_llama.tokenizer), tiny_llama, wrap_model(coarse_gpt2.module, None, name="bare")
        )
