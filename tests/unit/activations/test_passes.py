"""Streams of several hooks from one pass of the model: the rows of each alone, and the model runs once."""

from __future__ import annotations

import pytest
import torch

from neuronmap.activations import ActivationStream, MaskConfig, ShuffledBatches, passes
from neuronmap.corpora import open_corpus, tokenize
from neuronmap.models import resolve_hook

TEXTS = [f"Number {i}. The river froze in winter, and the children walked across it. " * (2 + i % 4) for i in range(24)]


@pytest.fixture(scope="module")
def tokens(tiny_gpt2):
    return tokenize(open_corpus(TEXTS), tiny_gpt2.tokenizer, context_length=16, part="all")


@pytest.fixture(scope="module")
def hooks(tiny_gpt2):
    return [resolve_hook(tiny_gpt2, 1, "residual"), resolve_hook(tiny_gpt2, 3, "mlp_hidden")]


def drawn(stream: ActivationStream, count: int, bucket_rows: int | str) -> list[torch.Tensor]:
    with ShuffledBatches(stream, 50, seed=3, bucket_rows=bucket_rows) as batches:
        return [next(batches).clone() for _ in range(count)]


@pytest.mark.parametrize("bucket_rows", ["auto", 400])
def test_rows_and_statistics_are_those_of_each_hook_alone(tiny_gpt2, tokens, hooks, bucket_rows):
    mask = MaskConfig(outlier_factor=1.2)  # drops other rows at each hook
    shared = ActivationStream.of_hooks(tiny_gpt2, tokens, hooks, mask=mask, batch_tokens=64)
    count = 2 * tokens.num_tokens // 50
    made = {name: ShuffledBatches(stream, 50, seed=3, bucket_rows=bucket_rows) for name, stream in shared.items()}
    together: dict[str, list[torch.Tensor]] = {name: [] for name in shared}
    for _ in range(count):
        for name, batches in made.items():
            together[name].append(next(batches).clone())
    for hook in hooks:
        single = ActivationStream(tiny_gpt2, tokens, hook, mask=mask, batch_tokens=64)
        assert single.digest == shared[hook.name].digest
        assert torch.equal(single.statistics.m2_D, shared[hook.name].statistics.m2_D)
        assert single.calibration == shared[hook.name].calibration
        for one, other in zip(drawn(single, count, bucket_rows), together[hook.name], strict=True):
            assert torch.equal(one, other)


def test_the_model_runs_once_over_a_block_for_all(tiny_gpt2, tokens, hooks):
    shared = ActivationStream.of_hooks(tiny_gpt2, tokens, hooks, batch_tokens=64)
    for stream in shared.values():
        drawn(stream, 4, "auto")
    assert next(iter(shared.values())).contexts_run == tokens.num_contexts


def test_what_does_not_fit_is_computed_again(tiny_gpt2, tokens, hooks, monkeypatch):
    monkeypatch.setattr(passes, "_KEPT_SHARE", 0.0)
    shared = ActivationStream.of_hooks(tiny_gpt2, tokens, hooks, batch_tokens=64)
    first, second = (drawn(stream, 4, "auto") for stream in shared.values())
    assert next(iter(shared.values())).contexts_run == 2 * tokens.num_contexts
    assert torch.equal(second[0], drawn(ActivationStream(tiny_gpt2, tokens, hooks[1], batch_tokens=64), 1, "auto")[0])
    assert len(first) == 4


def test_a_stream_that_is_closed_costs_nothing_more(tiny_gpt2, tokens, hooks):
    """The model stops at the deepest hook that is still read."""
    shared = ActivationStream.of_hooks(tiny_gpt2, tokens, hooks, batch_tokens=64)
    drawn(shared[hooks[0].name], 1, 400)
    shared[hooks[1].name].close()
    deepest = []
    handle = tiny_gpt2.module.transformer.h[3].register_forward_hook(lambda *_: deepest.append(1))
    try:
        drawn(shared[hooks[0].name], 3, 100)
    finally:
        handle.remove()
    assert not deepest
