"""Capture reads only what is needed, leaves nothing behind; replaced() puts other values in."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from neuronmap.errors import HookPointError
from neuronmap.models import HookPoint, LanguageModel, capture, list_hooks, replaced, resolve_hook


def hooks_on(model: LanguageModel) -> list[object]:
    """Every hook of the model, by module and key. Transformers leaves its own behind when it was asked for hidden states once."""
    return [
        (path, key)
        for path, module in model.module.named_modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
        for key in hooks
    ]


def ran(model: LanguageModel, hooks: list[HookPoint], ids_BT: Tensor) -> set[str]:
    """Paths of the modules that started to run during a capture."""
    seen: set[str] = set()

    def noting(path: str) -> object:
        return lambda _module, _args: seen.add(path) and None

    handles = [m.register_forward_pre_hook(noting(path)) for path, m in model.module.named_modules()]
    capture(model, ids_BT, hooks)
    for handle in handles:
        handle.remove()
    return seen


def test_stops_at_the_deepest_hook(tiny_llama: LanguageModel, ids_BT: Tensor) -> None:
    hooks = [resolve_hook(tiny_llama, 1, "residual"), resolve_hook(tiny_llama, 0, "mlp")]
    seen = ran(tiny_llama, hooks, ids_BT)
    assert "model.layers.1.mlp.down_proj" in seen
    assert not any(path.startswith(("model.layers.2", "model.layers.3", "lm_head", "model.norm")) for path in seen)
    seen = ran(tiny_llama, [resolve_hook(tiny_llama, 2, "residual_pre")], ids_BT)
    assert "model.layers.2.self_attn" not in seen


def test_the_head_is_never_run(any_model: LanguageModel, ids_BT: Tensor) -> None:
    head = any_model.module.get_output_embeddings()
    calls: list[nn.Module] = []
    handle = head.register_forward_hook(lambda module, _args, _output: calls.append(module))
    capture(any_model, ids_BT, list_hooks(any_model))
    handle.remove()
    assert calls == []


def test_many_hooks_in_one_pass_equal_one_at_a_time(tiny_gpt2: LanguageModel, ids_BT: Tensor) -> None:
    hooks = list_hooks(tiny_gpt2)
    together = capture(tiny_gpt2, ids_BT, hooks)
    assert list(together) == [hook.name for hook in hooks]
    for hook in hooks:
        assert torch.equal(together[hook.name], capture(tiny_gpt2, ids_BT, [hook])[hook.name])


def test_results_are_ordinary_tensors_of_their_own(tiny_llama: LanguageModel, ids_BT: Tensor) -> None:
    hook, later = resolve_hook(tiny_llama, 1, "residual"), resolve_hook(tiny_llama, 2, "residual_pre")
    taken = capture(tiny_llama, ids_BT, [hook, later])
    assert taken[hook.name].data_ptr() != taken[later.name].data_ptr()
    assert not taken[hook.name].is_inference()
    weight = torch.ones(32, requires_grad=True)
    (taken[hook.name] * weight).sum().backward()
    assert weight.grad is not None


def test_out_is_filled_in_place_and_cast(tiny_llama: LanguageModel, ids_BT: Tensor) -> None:
    before = hooks_on(tiny_llama)
    hook, other = resolve_hook(tiny_llama, 1, "residual"), resolve_hook(tiny_llama, 0, "mlp")
    buffer = torch.zeros(3, 7, 32, dtype=torch.bfloat16)
    taken = capture(tiny_llama, ids_BT, [hook, other], out={hook.name: buffer})
    assert taken[hook.name] is buffer
    assert torch.equal(buffer, capture(tiny_llama, ids_BT, [hook])[hook.name].bfloat16())
    assert taken[other.name].dtype == torch.float32
    with pytest.raises(HookPointError, match=r"\[3, 6, 32\]"):
        capture(tiny_llama, ids_BT, [hook], out={hook.name: torch.zeros(3, 6, 32)})
    assert hooks_on(tiny_llama) == before


def test_padding_on_the_right_does_not_change_real_tokens(any_model: LanguageModel, ids_BT: Tensor) -> None:
    hook = resolve_hook(any_model, 1, "residual")
    short = capture(any_model, ids_BT[:, :5], [hook])[hook.name]
    mask_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    mask_BT[:, 5:] = False
    padded = capture(any_model, ids_BT, [hook], attention_mask_BT=mask_BT)[hook.name]
    torch.testing.assert_close(padded[:, :5], short, rtol=1e-4, atol=1e-4)


def test_hooks_are_removed_after_errors(tiny_llama: LanguageModel, ids_BT: Tensor) -> None:
    before = hooks_on(tiny_llama)
    good = resolve_hook(tiny_llama, 3, "residual")
    with pytest.raises(IndexError):
        capture(tiny_llama, ids_BT + 100_000, [good])
    assert hooks_on(tiny_llama) == before
    with pytest.raises(HookPointError, match=r"did not run .* lm_head:out"):
        capture(tiny_llama, ids_BT, [good, HookPoint(None, None, "lm_head", "out", 300)])
    with pytest.raises(HookPointError, match="no module 'nowhere'"):
        capture(tiny_llama, ids_BT, [good, HookPoint(None, None, "nowhere", "out", 32)])
    with pytest.raises(HookPointError, match=r"is \[3, 7, 32\], not \[batch, tokens, width\] = \[3, 7, 31\]"):
        capture(tiny_llama, ids_BT, [HookPoint(0, None, "model.layers.0", "out", 31)])
    with pytest.raises(HookPointError, match=r"not \[7\]"):
        capture(tiny_llama, ids_BT[0], [good])
    assert hooks_on(tiny_llama) == before


def test_no_hooks_runs_nothing(tiny_llama: LanguageModel, ids_BT: Tensor) -> None:
    assert capture(tiny_llama, ids_BT, []) == {}


def test_replacing_by_the_same_changes_nothing(any_model: LanguageModel, ids_BT: Tensor) -> None:
    before = hooks_on(any_model)
    clean = any_model.logits(ids_BT)
    for hook in list_hooks(any_model):
        shapes: list[torch.Size] = []

        def same(x_BTW: Tensor, shapes: list[torch.Size] = shapes) -> Tensor:
            shapes.append(x_BTW.shape)
            return x_BTW.clone()

        with replaced(any_model, hook, same):
            assert torch.equal(any_model.logits(ids_BT), clean), hook
        assert shapes == [(*ids_BT.shape, hook.width)]
    assert hooks_on(any_model) == before


def test_replacing_by_zero_changes_the_logits(any_model: LanguageModel, ids_BT: Tensor) -> None:
    clean = any_model.logits(ids_BT)
    for hook in list_hooks(any_model):
        with replaced(any_model, hook, torch.zeros_like):
            assert not torch.allclose(any_model.logits(ids_BT), clean, atol=1e-5), hook
    assert torch.equal(any_model.logits(ids_BT), clean)


def test_a_replacement_is_seen_downstream(any_model: LanguageModel, ids_BT: Tensor) -> None:
    """Replacing what block 0 gives by another text's activations makes block 1 see exactly those."""
    given, seen = resolve_hook(any_model, 0, "residual"), resolve_hook(any_model, 1, "residual_pre")
    other = capture(any_model, ids_BT.flip(-1), [given])[given.name]
    with replaced(any_model, given, lambda _: other):
        assert torch.equal(capture(any_model, ids_BT, [seen])[seen.name], other)


def test_a_replacement_of_another_shape_is_refused(tiny_llama: LanguageModel, ids_BT: Tensor) -> None:
    before = hooks_on(tiny_llama)
    hook = resolve_hook(tiny_llama, 1, "mlp")
    with (
        pytest.raises(HookPointError, match=r"\[3, 7, 32\]; the function gave \[3, 7, 31\]"),
        replaced(tiny_llama, hook, lambda x: x[..., 1:]),
    ):
        tiny_llama.logits(ids_BT)
    assert hooks_on(tiny_llama) == before


def test_replaced_keeps_the_graph(tiny_llama: LanguageModel, ids_BT: Tensor) -> None:
    hook = resolve_hook(tiny_llama, 1, "mlp")
    scale = torch.ones((), requires_grad=True)
    with replaced(tiny_llama, hook, lambda x: x * scale):
        tiny_llama.module(input_ids=ids_BT).logits.square().mean().backward()
    assert scale.grad is not None
    assert float(scale.grad) != 0.0


def test_mixed_precision_is_cast_back(ids_BT: Tensor, tiny_llama: LanguageModel) -> None:
    hook = resolve_hook(tiny_llama, 1, "residual")
    with replaced(tiny_llama, hook, lambda x: x.double()):
        assert tiny_llama.logits(ids_BT).dtype == torch.float32


def test_a_models_remarks_on_its_forward_pass_are_not_printed(ids_BT: Tensor, tiny_llama: LanguageModel) -> None:
    from transformers.utils import logging as theirs

    logger, before, heard = theirs.get_logger("transformers.models.llama"), theirs.get_verbosity(), []
    handler = logging.Handler()
    handler.emit = heard.append  # type: ignore[method-assign, assignment]
    logger.addHandler(handler)
    remark = tiny_llama.module.model.layers[0].register_forward_pre_hook(lambda *_: logger.warning("falling back"))
    try:
        theirs.set_verbosity_warning()
        capture(tiny_llama, ids_BT, [resolve_hook(tiny_llama, 1)])
        tiny_llama.logits(ids_BT)
        assert heard == []
        assert theirs.get_verbosity() == theirs.WARNING
        tiny_llama.module(ids_BT)
        assert len(heard) == 1
    finally:
        remark.remove()
        logger.removeHandler(handler)
        theirs.set_verbosity(before)
