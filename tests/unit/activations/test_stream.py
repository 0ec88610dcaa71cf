"""A stream gives the rows of a store without one."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any

import pytest
import torch
from token_sets import Notes, PlainTokens, tuned_with

from neuronmap.activations import ActivationStream, MaskConfig, ShuffledBatches, harvest
from neuronmap.errors import EmptyCorpusError, InputError, MismatchError
from neuronmap.models import LanguageModel, capture, resolve_hook

MASK = MaskConfig(outlier_factor=1.2)


def rows_of(batch_BW: torch.Tensor) -> list[bytes]:
    return [row.numpy().tobytes() for row in batch_BW]


@pytest.mark.parametrize("bucket", ["auto", 64])
def test_an_epoch_holds_exactly_the_rows_of_the_store(model: LanguageModel, tokens: PlainTokens, bucket: Any) -> None:
    hook = resolve_hook(model, 0, "mlp")
    store = harvest(model, tokens, [hook], dtype="float32", mask=MASK, batch_tokens=32)[hook.name]
    assert store.manifest["dropped"]["outliers"] > 0
    expected = Counter(rows_of(store.read(0, store.num_rows)))
    stream = ActivationStream(model, tokens, hook, mask=MASK, batch_tokens=32)
    with ShuffledBatches(stream, store.num_rows, seed=0, bucket_rows=bucket) as batches:
        epochs = [rows_of(next(batches)) for _ in range(3)]
    assert [Counter(epoch) for epoch in epochs] == [expected] * 3
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("stop", [0, 3, 10, 25])
def test_restoring_runs_the_model_for_one_bucket_only(
    model: LanguageModel, tokens: PlainTokens, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = resolve_hook(model, 1)

    def fresh() -> ShuffledBatches:
        stream = ActivationStream(model, tokens, hook, mask=MASK, batch_tokens=32)
        return ShuffledBatches(stream, 20, seed=4, bucket_rows=64)

    first = fresh()
    for _ in range(stop):
        next(first)
    state = json.loads(json.dumps(first.state()))
    expected = [rows_of(next(first)) for _ in range(20)]
    second = fresh()
    second.restore(state)
    assert [rows_of(next(second)) for _ in range(20)] == expected


def test_a_state_is_restored_with_other_measured_settings_and_gives_the_same_bits(
    model: LanguageModel, tokens: PlainTokens
) -> None:
    """The state holds how many contexts go through the model at once; the input scale does not depend on it."""
    hook = resolve_hook(model, 1)
    one, two = (ActivationStream(model, tokens, hook, batch_tokens=n) for n in (32, 80))
    assert one.digest == two.digest
    assert torch.equal(one.statistics.mean_D, two.statistics.mean_D)
    assert torch.equal(one.statistics.m2_D, two.statistics.m2_D)
    first, second = ShuffledBatches(one, 20, seed=4), ShuffledBatches(two, 20, seed=4)
    for _ in range(7):
        next(first)
    second.restore(json.loads(json.dumps(first.state())))
    for _ in range(40):
        assert torch.equal(next(second), next(first))
    smaller = ShuffledBatches(ActivationStream(model, tokens, hook, batch_tokens=16), 20, seed=4)
    smaller.restore(second.state())
    assert torch.equal(next(smaller), next(first))


def test_measured_tokens_a_pass_are_used(model: LanguageModel, tokens: PlainTokens) -> None:
    tuned_with(batch_tokens=80)
    assert ActivationStream(model, tokens, resolve_hook(model, 1)).block_units == 5
    assert ActivationStream(model, tokens, resolve_hook(model, 1), batch_tokens=32).block_units == 2


def test_statistics_agree_with_the_store_of_the_same_rows(model: LanguageModel, tokens: PlainTokens) -> None:
    hook = resolve_hook(model, 1)
    store = harvest(model, tokens, [hook], dtype="float32")[hook.name]
    stream = ActivationStream(model, tokens, hook)
    assert stream.statistics.rows == store.num_rows <= stream.num_rows
    torch.testing.assert_close(stream.statistics.mean_D, store.statistics.mean_D, rtol=1e-5, atol=1e-6)
    assert stream.statistics.mean_square_norm == pytest.approx(store.statistics.mean_square_norm, rel=1e-5)
    assert stream.calibration.outlier_threshold == store.manifest["outlier_threshold"]


def test_on_a_cpu_the_model_runs_in_the_callers_thread(model: LanguageModel, tokens: PlainTokens) -> None:
    seen = set()
    handle = model.module.get_submodule("model.layers.0").register_forward_hook(
        lambda *_: seen.add(threading.current_thread().name)
    )
    with ShuffledBatches(ActivationStream(model, tokens, resolve_hook(model, 1)), 8, seed=0, bucket_rows=64) as batches:
        for _ in range(30):
            next(batches)
    handle.remove()
    assert seen == {threading.current_thread().name}


def test_running_ahead_in_a_thread_gives_the_same_batches_while_others_use_the_model(
    model: LanguageModel, tokens: PlainTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an accelerator: the thread's hooks never see a forward pass of the caller, nor the other way round."""
    hook, other = resolve_hook(model, 1), resolve_hook(model, 0, "mlp")
    ids_BT = torch.arange(12).view(2, 6)
    alone_BTW = capture(model, ids_BT, [other])[other.name]
    with ShuffledBatches(ActivationStream(model, tokens, hook), 8, seed=0, bucket_rows=64) as batches:
        expected = [next(batches).clone() for _ in range(40)]
    monkeypatch.setattr(ActivationStream, "in_background", True)
    with ShuffledBatches(ActivationStream(model, tokens, hook), 8, seed=0, bucket_rows=64) as batches:
        for batch_BW in expected:
            assert torch.equal(next(batches), batch_BW)
            assert torch.equal(capture(model, ids_BT, [other])[other.name], alone_BTW)
        assert batches.waited_seconds > 0


@pytest.fixture
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an accelerator, with little text."""
    monkeypatch.setattr(ActivationStream, "in_background", True)
    monkeypatch.setattr("neuronmap.activations.blocks._STREAM_BUCKET_ROWS", 64)


def test_the_model_runs_ahead_while_training_is_busy_and_training_goes_on_while_the_model_is(
    model: LanguageModel, tokens: PlainTokens, small_buckets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = ActivationStream(model, tokens, resolve_hook(model, 1), batch_tokens=32)
    with ShuffledBatches(stream, 8, seed=0, once=True) as batches:
        assert batches.bucket_rows == 60  # 2 passes of 2 contexts
        expected = [next(batches).clone() for _ in range(40)]
    calls, ahead, go_on = [0], threading.Event(), threading.Event()

    def gated(*args: Any, **rest: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:  # the first pass for the second bucket
            ahead.set()
            assert go_on.wait(60)
        return capture(*args, **rest)

    monkeypatch.setattr("neuronmap.activations.extract.capture", gated)
    with ShuffledBatches(stream, 8, seed=0, once=True) as batches:
        found = [next(batches).clone()]
        assert ahead.wait(60), "nobody asked for a batch, and the model did not run ahead"
        found += [next(batches).clone() for _ in range(2)]  # the model is in the middle of a pass
        go_on.set()
        found += [next(batches).clone() for _ in range(37)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(("once", "background", "buckets"), [(True, True, 6), (False, True, 1), (True, False, 1)])
def test_small_buckets_are_for_a_stream_that_is_used_once_beside_a_model_on_an_accelerator(
    model: LanguageModel, tokens: PlainTokens, small_buckets: None, monkeypatch: pytest.MonkeyPatch, once: bool,
    background: bool, buckets: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(ActivationStream, "in_background", background)
    stream = ActivationStream(model, tokens, resolve_hook(model, 1), batch_tokens=32)
    batches = ShuffledBatches(stream, 8, seed=0, once=once)
    assert -(-stream.num_units * stream.rows_per_unit // batches.bucket_rows) == buckets


def test_state_of_another_hook_is_refused(model: LanguageModel, tokens: PlainTokens) -> None:
    one, two = (ShuffledBatches(ActivationStream(model, tokens, resolve_hook(model, n)), 8, seed=0) for n in (0, 1))
    with pytest.raises(MismatchError, match="source"):
        two.restore(one.state())


def test_unusable_inputs_are_refused_at_once(model: LanguageModel, tokens: PlainTokens, notes: Notes) -> None:
    hook = resolve_hook(model, 0)
    with pytest.raises(EmptyCorpusError, match="drops every position"):
        ActivationStream(model, tokens, hook, mask=MaskConfig(skip_first_positions=20), progress=notes)
    with pytest.raises(InputError, match="takes at most 64"):
        ActivationStream(model, PlainTokens(2, 100), hook)
