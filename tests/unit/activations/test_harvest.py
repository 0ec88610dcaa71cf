"""Harvested rows are the model's own activations, in order, with everything dropped accounted for."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from token_sets import Notes, PlainTokens

from neuronmap.activations import ActivationStore, ActivationStream, MaskConfig, find_store, harvest, store_key
from neuronmap.corpora import tokenize
from neuronmap.errors import (
    ConfigError,
    DamagedError,
    DiskSpaceError,
    EmptyCorpusError,
    InputError,
    MismatchError,
    UnwritablePathError,
)
from neuronmap.models import HookPoint, LanguageModel, resolve_hook
from neuronmap.verified import VERIFIED

KEEP_ALL = MaskConfig(skip_special=False, skip_first_positions=0, outlier_factor=None)


def plain_activations(model: LanguageModel, tokens: PlainTokens, hook: HookPoint) -> torch.Tensor:
    """[contexts, T, W] by a plain forward hook on the whole model."""
    caught = []
    module = model.module.get_submodule(hook.module_path)

    def keep(_: Any, __: Any, output: Any) -> None:
        caught.append((output[0] if isinstance(output, tuple) else output).clone())

    handle = module.register_forward_hook(keep)
    with torch.no_grad():
        model.module(
            input_ids=torch.from_numpy(tokens.input_ids), attention_mask=torch.from_numpy(tokens.attention).long()
        )
    handle.remove()
    return caught[0]


def folder_bytes(folder: Path) -> dict[str, str]:
    """File name -> digest, without what names the moment of creation."""
    digests = {}
    for file in sorted(folder.iterdir()):
        if file.name == VERIFIED:  # file times
            continue
        data = file.read_bytes()
        if file.name == "manifest.json":
            data = b"\n".join(line for line in data.split(b"\n") if b'"created"' not in line and b"_digest" not in line)
        digests[file.name] = hashlib.sha256(data).hexdigest()
    return digests


def test_rows_are_the_hooked_modules_outputs_after_the_mask_in_order(
    model: LanguageModel, tokens: PlainTokens, notes: Notes
) -> None:
    hook = resolve_hook(model, 1, "residual")
    mask = MaskConfig(outlier_factor=None)
    store = harvest(model, tokens, [hook], dtype="float32", mask=mask, batch_tokens=64, shard_rows=50, progress=notes)[
        hook.name
    ]
    kept = tokens.kept()
    expected = plain_activations(model, tokens, hook)[torch.from_numpy(kept)]
    assert store.num_rows == kept.sum() > 200
    torch.testing.assert_close(store.read(0, store.num_rows), expected, rtol=1e-5, atol=1e-5)
    origin = store.provenance(0, store.num_rows)
    np.testing.assert_array_equal(origin.document, tokens.document[kept])
    np.testing.assert_array_equal(origin.position, tokens.position[kept])
    np.testing.assert_array_equal(origin.token_id, tokens.input_ids[kept])
    np.testing.assert_array_equal(origin.context, np.nonzero(kept)[0])


def test_every_dropped_position_is_counted_under_one_reason(model: LanguageModel, tokens: PlainTokens) -> None:
    hook = resolve_hook(model, 0, "mlp")
    mask = MaskConfig(outlier_factor=1.2)
    store = harvest(model, tokens, [hook], mask=mask)[hook.name]
    dropped = store.manifest["dropped"]
    assert dropped["padding"] == 5
    assert dropped["special"] == int((tokens.special & tokens.attention).sum())
    assert dropped["first_positions"] == int((~tokens.special[:, 0]).sum())
    assert dropped["outliers"] > 0
    assert store.num_rows + sum(dropped.values()) == 23 * 16


def test_rows_above_the_threshold_are_dropped_and_no_others(model: LanguageModel, tokens: PlainTokens) -> None:
    hook = resolve_hook(model, 0, "mlp")
    store = harvest(model, tokens, [hook], dtype="float32", mask=MaskConfig(outlier_factor=1.2))[hook.name]
    norms = plain_activations(model, tokens, hook)[torch.from_numpy(tokens.kept())].norm(dim=1)
    threshold = 1.2 * float(norms.median())
    assert store.manifest["outlier_threshold"] == pytest.approx(threshold, rel=1e-5)
    assert store.num_rows == int((norms <= threshold).sum())
    assert float(store.read(0, store.num_rows).norm(dim=1).max()) <= threshold * (1 + 1e-6)


def test_the_mask_can_be_switched_off_but_padding_never_is_a_row(model: LanguageModel, tokens: PlainTokens) -> None:
    hook = resolve_hook(model, 0)
    store = harvest(model, tokens, [hook], mask=KEEP_ALL)[hook.name]
    assert store.num_rows == tokens.num_tokens
    assert store.manifest["dropped"]["padding"] == 5


def test_hooks_harvested_together_give_the_same_bytes_as_alone(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path
) -> None:
    hooks = [resolve_hook(model, 0, "mlp_hidden"), resolve_hook(model, 1, "residual")]
    together = harvest(model, tokens, hooks, root=tmp_path / "both", batch_tokens=48)
    for hook in hooks:
        alone = harvest(model, tokens, [hook], root=tmp_path / "alone", batch_tokens=48)[hook.name]
        assert folder_bytes(alone.path) == folder_bytes(together[hook.name].path)
    assert together[hooks[0].name].width == 40


def test_batch_size_changes_neither_which_rows_nor_their_order(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path
) -> None:
    hook = resolve_hook(model, 1)
    stores = [
        harvest(model, tokens, [hook], root=tmp_path / str(n), batch_tokens=n, dtype="float32")[hook.name]
        for n in (1, 40, 10_000)
    ]
    first = stores[0]
    assert len({store.digest for store in stores}) == 1
    for other in stores[1:]:
        assert other.manifest["outlier_threshold"] == first.manifest["outlier_threshold"]
        for mine, theirs in zip(first.provenance(0, first.num_rows), other.provenance(0, other.num_rows), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        torch.testing.assert_close(other.read(0, other.num_rows), first.read(0, first.num_rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_values_are_stored_rounded_once_and_the_error_is_recorded(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path, dtype: Any
) -> None:
    hook = resolve_hook(model, 1)
    exact = harvest(model, tokens, [hook], root=tmp_path, dtype="float32")[hook.name].read(0, 100)
    store = harvest(model, tokens, [hook], root=tmp_path, dtype=dtype)[hook.name]
    stored = store.read(0, 100)
    assert stored.dtype == store.dtype == getattr(torch, dtype)
    assert torch.equal(stored, exact.to(store.dtype))
    error = store.manifest["rounding_error"]
    everything = harvest(model, tokens, [hook], root=tmp_path, dtype="float32")[hook.name].read(0, store.num_rows)
    rounded = everything.to(store.dtype).double()
    expected = float((everything.double() - rounded).square().sum() / everything.double().square().sum())
    assert error == pytest.approx(expected, rel=0.01)
    assert error < {"float32": 1e-30, "float16": 2e-7, "bfloat16": 1e-5}[dtype]


def test_statistics_in_the_store_are_those_of_the_stored_rows(model: LanguageModel, tokens: PlainTokens) -> None:
    hook = resolve_hook(model, 1)
    store = harvest(model, tokens, [hook], dtype="bfloat16", shard_rows=64)[hook.name]
    x = store.read(0, store.num_rows).double()
    torch.testing.assert_close(store.statistics.mean_D, x.mean(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(store.statistics.variance_D, x.var(0, correction=0), rtol=1e-11, atol=0)
    assert store.manifest["mean_square_norm"] == pytest.approx(float(x.square().sum(1).mean()), rel=1e-12)


def scaled(model: LanguageModel, hook: HookPoint, factor: float) -> Any:
    """A forward hook that multiplies the module's output."""
    module = model.module.get_submodule(hook.module_path)
    return module.register_forward_hook(lambda _, __, output: output * factor)


def test_auto_dtype_keeps_large_values_out_of_float16(
    model: LanguageModel, tokens: PlainTokens, notes: Notes, tmp_path: Path
) -> None:
    hook = resolve_hook(model, 1, "mlp")
    small = harvest(model, tokens, [hook], root=tmp_path / "small", progress=notes)[hook.name]
    assert small.manifest["dtype"] == "float16"
    assert "float16 (sampled values reach" in notes.text
    handle = scaled(model, hook, 1e6)
    large = harvest(model, tokens, [hook], root=tmp_path / "large", progress=notes)[hook.name]
    handle.remove()
    assert large.manifest["dtype"] == "bfloat16"
    assert "2^15" in large.manifest["dtype_rule"]
    handle = scaled(model, hook, 1e-6)
    tiny = harvest(model, tokens, [hook], root=tmp_path / "tiny", progress=notes)[hook.name]
    handle.remove()
    assert tiny.manifest["dtype"] == "bfloat16"
    assert tiny.manifest["rounding_error"] < 1e-5


def test_values_beyond_float16_are_an_error_not_infinity(model: LanguageModel, tokens: PlainTokens) -> None:
    hook = resolve_hook(model, 1, "mlp")
    handle = scaled(model, hook, 1e6)
    with pytest.raises(InputError, match="float16 limit") as caught:
        harvest(model, tokens, [hook], dtype="float16")
    handle.remove()
    assert "bfloat16" in caught.value.hint


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_model_that_gives_nan_or_infinity_is_named_with_its_hook(
    model: LanguageModel, tokens: PlainTokens, bad: float
) -> None:
    hook = resolve_hook(model, 1, "residual")

    def spoil(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        output[1, 3, 2] = bad
        return output

    handle = model.module.get_submodule(hook.module_path).register_forward_hook(spoil)
    with pytest.raises(InputError, match=r"layers\.1:out: 1 of .*context 1, position 3") as caught:
        harvest(model, tokens, [hook])
    handle.remove()
    assert "float32" in caught.value.hint


def test_a_complete_store_is_reused_without_running_the_model(
    model: LanguageModel, tokens: PlainTokens, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = resolve_hook(model, 0)
    first = harvest(model, tokens, [hook])[hook.name]
    monkeypatch.setattr("neuronmap.activations.extract.capture", None)
    again = harvest(model, tokens, [hook], batch_tokens=7, progress=notes)[hook.name]
    assert again.path == first.path
    assert f"Reusing {first.num_rows:,} rows" in notes.text


def test_only_missing_hooks_are_harvested(
    model: LanguageModel, tokens: PlainTokens, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = resolve_hook(model, 1, "mlp"), resolve_hook(model, 0, "mlp")
    harvest(model, tokens, [old])
    from neuronmap.models import capture

    asked: set[str] = set()

    def watched(model: Any, ids: Any, hooks: Any, **rest: Any) -> Any:
        asked.update(hook.name for hook in hooks)
        return capture(model, ids, hooks, **rest)

    monkeypatch.setattr("neuronmap.activations.extract.capture", watched)
    stores = harvest(model, tokens, [old, new], progress=notes)
    assert asked == {new.name}
    assert set(stores) == {old.name, new.name}


def test_key_follows_every_input_that_changes_rows(model: LanguageModel, tokens: PlainTokens) -> None:
    hook = resolve_hook(model, 0)
    keys = {
        store_key(model, tokens, hook),
        store_key(model, tokens, resolve_hook(model, 1)),
        store_key(model, PlainTokens(5, 16), hook),
        store_key(model, tokens, hook, dtype="float32"),
        store_key(model, tokens, hook, mask=KEEP_ALL),
    }
    assert len(keys) == 5
    assert store_key(model, tokens, hook, mask=MaskConfig()) in keys


def test_need_and_free_space_are_said_before_starting(model: LanguageModel, tokens: PlainTokens, notes: Notes) -> None:
    hook = resolve_hook(model, 0)
    harvest(model, tokens, [hook], dtype="float16", progress=notes)
    assert "Harvesting up to 345 rows of 1 hook point(s): 16.2 KiB" in notes.text  # 23 * 15 rows of 32 + 16 bytes
    assert notes.advanced == 23 * 16


def test_too_little_disk_is_refused_before_the_harvest(
    model: LanguageModel, tokens: PlainTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 5000, 5000))  # type: ignore[attr-defined]
    with pytest.raises(DiskSpaceError, match=r"345 activation rows need .* only 4\.9 KiB are free"):
        harvest(model, tokens, [resolve_hook(model, 0)])


def test_an_unwritable_root_is_refused(model: LanguageModel, tokens: PlainTokens, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UnwritablePathError):
        harvest(model, tokens, [resolve_hook(model, 0)], root=tmp_path / "file" / "below")


def test_a_mask_that_leaves_nothing_says_what_it_dropped(model: LanguageModel, tokens: PlainTokens) -> None:
    with pytest.raises(EmptyCorpusError, match=r"23 contexts of 16 tokens \(5 as padding, .* as first positions"):
        harvest(model, tokens, [resolve_hook(model, 0)], mask=MaskConfig(skip_first_positions=16))


def test_impossible_settings_are_refused(model: LanguageModel, tokens: PlainTokens) -> None:
    hook = resolve_hook(model, 0)
    with pytest.raises(InputError, match="No hook point"):
        harvest(model, tokens, [])
    with pytest.raises(InputError, match="128 tokens long, but tiny takes at most 64"):
        harvest(model, PlainTokens(2, 128), [hook])
    with pytest.raises(InputError, match="batch_tokens = 0"):
        harvest(model, tokens, [hook], batch_tokens=0)
    with pytest.raises(ConfigError, match="allowed are auto, float32"):
        harvest(model, tokens, [hook], dtype="int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="shard_rows = 0"):
        harvest(model, tokens, [hook], shard_rows=0)
    with pytest.raises(ConfigError, match="outlier_factor"):
        MaskConfig(outlier_factor=0.5)


def test_tokens_of_another_vocabulary_are_refused(model: LanguageModel) -> None:
    with pytest.raises(MismatchError, match=r"outside the vocabulary of tiny \(300 entries\)"):
        harvest(model, PlainTokens(4, 16, vocabulary=5000), [resolve_hook(model, 0)])  # type: ignore[arg-type]


def test_real_text_is_traced_from_row_to_document(tiny_llama: LanguageModel) -> None:
    texts = [f"Speech number {n}: my fellow citizens, the state of our union is strong." for n in range(40)]
    tokens = tokenize(texts, tiny_llama.tokenizer, context_length=32, part="all", progress=Notes())
    hook = resolve_hook(tiny_llama, 2)
    store = harvest(tiny_llama, tokens, [hook], progress=Notes())[hook.name]
    origin = store.provenance(0, store.num_rows)
    assert (origin.document >= 0).all()
    assert store.num_rows + sum(store.manifest["dropped"].values()) == tokens.num_contexts * 32
    for row in (0, 17, store.num_rows - 1):
        own = tokens.tokens_of_document(int(origin.document[row]))
        assert own[origin.position[row]] == origin.token_id[row]
    assert store.manifest["tokens"]["report"]["documents"] == tokens.num_documents
    stream = ActivationStream(tiny_llama, tokens, hook, progress=Notes())
    assert stream.num_rows == store.num_rows + store.manifest["dropped"]["outliers"]


def test_the_manifest_says_what_the_rows_are(model: LanguageModel, tokens: PlainTokens) -> None:
    hook = resolve_hook(model, 1, "mlp")
    store = harvest(model, tokens, [hook])[hook.name]
    assert store.model == model.identity.to_dict()
    assert HookPoint.from_dict(store.hook) == hook
    assert store.manifest["tokens"]["digest"] == tokens.digest
    assert store.manifest["mask"] == MaskConfig().to_dict()
    assert ActivationStore.open(store.path, verify=True).manifest == store.manifest
    assert sorted(file.name for file in store.path.iterdir()) == [
        "index-00000.bin",
        "manifest.json",
        "rows-00000.bin",
        "statistics.safetensors",
        "verified.json",
    ]


def test_a_store_is_found_once_it_is_whole_and_only_for_its_own_inputs(
    model: LanguageModel, tokens: PlainTokens, tmp_path: Path
) -> None:
    hook = resolve_hook(model, 1)
    assert find_store(model, tokens, hook, root=tmp_path, progress=Notes()) is None
    made = harvest(model, tokens, [hook], root=tmp_path, progress=Notes())[hook.name]
    found = find_store(model, tokens, hook, root=tmp_path, progress=Notes())
    assert found is not None
    assert found.path == made.path
    assert find_store(model, tokens, hook, root=tmp_path, mask=KEEP_ALL, progress=Notes()) is None
    assert find_store(model, tokens, resolve_hook(model, 0), root=tmp_path, progress=Notes()) is None
    rows = made.path / "rows-00000.bin"
    rows.write_bytes(bytes([rows.read_bytes()[0] ^ 1]) + rows.read_bytes()[1:])
    with pytest.raises(DamagedError, match=r"rows-00000\.bin was changed"):
        find_store(model, tokens, hook, root=tmp_path, progress=Notes())
