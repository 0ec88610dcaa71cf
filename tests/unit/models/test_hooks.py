"""Hook points are found by structure, and each carries what its name says."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from neuronmap.errors import HookPointError
from neuronmap.models import (
    COMPONENTS,
    HookPoint,
    LanguageModel,
    capture,
    list_hooks,
    resolve_hook,
    resolve_hooks,
    saelens_hook_name,
)

EXPECTED = {  # attention, attention_heads, mlp, mlp_hidden inside block 1, with the width of the two inner ones
    "bert": ("attention.output.dense:out", "attention.output.dense:in 32", "output.dense:out", "output.dense:in 80"),
    "bloom": ("self_attention.dense:out", "self_attention.dense:in 32", "mlp.dense_4h_to_h:out", "mlp.dense_4h_to_h:in 128"),
    "gemma2": ("post_attention_layernorm:out", "self_attn.o_proj:in 64", "post_feedforward_layernorm:out", "mlp.down_proj:in 80"),
    "gemma3": ("post_attention_layernorm:out", "self_attn.o_proj:in 64", "post_feedforward_layernorm:out", "mlp.down_proj:in 80"),
    "gpt2": ("attn:out", "attn.c_proj:in 32", "mlp:out", "mlp.c_proj:in 128"),
    "gptj": ("attn:out", "attn.out_proj:in 32", "mlp:out", "mlp.fc_out:in 128"),
    "llama": ("self_attn:out", "self_attn.o_proj:in 32", "mlp:out", "mlp.down_proj:in 80"),
    "mamba": ("mixer:out", "mixer.out_proj:in 64", None, None),
    "neox": ("attention:out", "attention.dense:in 32", "mlp:out", "mlp.dense_4h_to_h:in 80"),
    "neox-sequential": ("attention:out", "attention.dense:in 32", "mlp:out", "mlp.dense_4h_to_h:in 80"),
    "olmo2": ("post_attention_layernorm:out", "self_attn.o_proj:in 32", "post_feedforward_layernorm:out", "mlp.down_proj:in 80"),
    "opt": ("self_attn:out", "self_attn.out_proj:in 32", "fc2:out", "fc2:in 80"),
    "phi": ("self_attn:out", "self_attn.dense:in 32", "mlp:out", "mlp.fc2:in 80"),
    "qwen2": ("self_attn:out", "self_attn.o_proj:in 32", "mlp:out", "mlp.down_proj:in 80"),
    "qwen3": ("self_attn:out", "self_attn.o_proj:in 64", "mlp:out", "mlp.down_proj:in 80"),
    "qwen3-moe": ("self_attn:out", "self_attn.o_proj:in 32", "mlp:out", None),
}  # fmt: skip


def plain_hook(model: LanguageModel, path: str, side: str, ids_BT: Tensor) -> Tensor:
    """What a hook written by hand sees in a full forward pass."""
    seen: list[Tensor] = []

    def hook(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: object) -> None:
        value = (args[0] if args else kwargs["hidden_states"]) if side == "in" else output
        seen.append((value[0] if isinstance(value, tuple) else value).clone())

    handle = model.module.get_submodule(path).register_forward_hook(hook, with_kwargs=True)
    with torch.no_grad():
        model.module(input_ids=ids_BT)
    handle.remove()
    return seen[0].reshape(*ids_BT.shape, -1)


def test_components_of_every_architecture(any_model: LanguageModel, architecture: str) -> None:
    prefix = any_model.blocks.prefix
    found = {hook.component: hook for hook in list_hooks(any_model) if hook.layer == 1}
    assert found["residual"].name == f"{prefix}.1:out"
    assert found["residual_pre"].name == f"{prefix}.1:in"
    shown = []
    for component in ("attention", "attention_heads", "mlp", "mlp_hidden"):
        hook = found.get(component)
        text = None if hook is None else hook.name.removeprefix(f"{prefix}.1.")
        shown.append(f"{text} {hook.width}" if hook and component in ("attention_heads", "mlp_hidden") else text)
    assert tuple(shown) == EXPECTED[architecture]


def test_captured_values_equal_plain_hooks(any_model: LanguageModel, ids_BT: Tensor) -> None:
    hooks = list_hooks(any_model)
    assert {hook.layer for hook in hooks} == {0, 1, 2}
    taken = capture(any_model, ids_BT, hooks)
    for hook in hooks:
        assert taken[hook.name].shape == (*ids_BT.shape, hook.width)
        torch.testing.assert_close(
            taken[hook.name], plain_hook(any_model, hook.module_path, hook.side, ids_BT), rtol=0, atol=0
        )


def test_residual_equals_output_hidden_states(any_model: LanguageModel, architecture: str, ids_BT: Tensor) -> None:
    with torch.no_grad():
        # a copy: transformers leaves hooks of its own in a model that was asked for its hidden states
        states = copy.deepcopy(any_model.module)(input_ids=ids_BT, output_hidden_states=True).hidden_states
    if architecture == "mamba":  # lists what the blocks give, without the embeddings
        states = (any_model.module.get_input_embeddings()(ids_BT), *states)
    after = [resolve_hook(any_model, layer, "residual") for layer in range(3)]
    before = [resolve_hook(any_model, layer, "residual_pre") for layer in range(3)]
    taken = capture(any_model, ids_BT, after + before)
    for layer in range(3):
        assert torch.equal(taken[before[layer].name], states[layer])
    for layer in range(2):  # the last of them is normalised once more, so it is not the block's output
        assert torch.equal(taken[after[layer].name], states[layer + 1])
        assert torch.equal(taken[after[layer].name], taken[before[layer + 1].name])


def test_contributions_add_up_to_the_residual(any_model: LanguageModel, architecture: str, ids_BT: Tensor) -> None:
    """The check that attention and mlp are what their names say: they are all a block adds to the stream."""
    taken = capture(any_model, ids_BT, list_hooks(any_model))
    for layer in range(3):
        parts = {
            name: taken[resolve_hook(any_model, layer, name).name]
            for name in ("residual_pre", "attention", "mlp", "residual")
            if not (architecture == "mamba" and name == "mlp")
        }
        if architecture == "bert":  # normalises after each addition
            block = any_model.module.get_submodule(f"{any_model.blocks.prefix}.{layer}")
            middle = block.attention.output.LayerNorm(parts["residual_pre"] + parts["attention"])
            expected = block.output.LayerNorm(middle + parts["mlp"])
        else:
            expected = sum(value for name, value in parts.items() if name != "residual")
        torch.testing.assert_close(parts["residual"], expected, rtol=1e-4, atol=1e-4)


def test_inner_activations_give_their_contribution_through_one_projection(
    ids_BT: Tensor, tiny_llama: LanguageModel
) -> None:
    for inner, outer in (("mlp_hidden", "mlp"), ("attention_heads", "attention")):
        inside, outside = resolve_hook(tiny_llama, 2, inner), resolve_hook(tiny_llama, 2, outer)
        taken = capture(tiny_llama, ids_BT, [inside, outside])
        projection = tiny_llama.module.get_submodule(inside.module_path)
        torch.testing.assert_close(projection(taken[inside.name]), taken[outside.name])


def test_blocks_built_alike_are_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    from neuronmap.models import language_model, wrap_model

    probed: list[nn.Module] = []
    real = language_model.find_roles

    def counted(module: nn.Module, backbone: nn.Module, block: nn.Module) -> object:
        probed.append(block)
        return real(module, backbone, block)

    monkeypatch.setattr(language_model, "find_roles", counted)
    config = transformers.Qwen3MoeConfig(
        vocab_size=96, hidden_size=32, intermediate_size=80, moe_intermediate_size=16, num_experts=4,
        num_experts_per_tok=2, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        mlp_only_layers=[0, 2], initializer_range=0.2,
    )  # fmt: skip
    model = wrap_model(transformers.Qwen3MoeForCausalLM(config))
    names = {(hook.layer, hook.component) for hook in list_hooks(model)}
    assert len(probed) == 2  # one dense block, one of experts
    assert (0, "mlp_hidden") in names
    assert (1, "mlp_hidden") not in names


def test_explicit_paths(tiny_llama: LanguageModel) -> None:
    full = resolve_hook(tiny_llama, None, "model.layers.3.mlp.down_proj:in")
    assert full == resolve_hook(tiny_llama, 3, "mlp_hidden")
    assert resolve_hook(tiny_llama, None, "layers.3.mlp.down_proj:in") == full
    assert full == HookPoint(3, "mlp_hidden", "model.layers.3.mlp.down_proj", "in", 96)
    gate = resolve_hook(tiny_llama, None, "model.layers.0.mlp.gate_proj:out")
    assert (gate.layer, gate.component, gate.width) == (0, None, 96)
    norm = resolve_hook(tiny_llama, None, "model.norm:out")
    assert (norm.layer, norm.component, norm.width) == (None, None, 32)


def test_patterns(tiny_llama: LanguageModel) -> None:
    assert [hook.name for hook in resolve_hooks(tiny_llama, "model.layers.*.mlp:out")] == [
        f"model.layers.{layer}.mlp:out" for layer in range(4)
    ]
    assert resolve_hooks(tiny_llama, "layers.*.mlp:out") == resolve_hooks(tiny_llama, "mlp")
    assert len(resolve_hooks(tiny_llama, "mlp*")) == 8
    assert [hook.layer for hook in resolve_hooks(tiny_llama, "*.[01].self_attn.[qk]_proj:out")] == [0, 0, 1, 1]
    with pytest.raises(HookPointError, match=r"matches 'model\.layers\.9\.\*:out'"):
        resolve_hooks(tiny_llama, "model.layers.9.*:out")


@pytest.mark.parametrize(
    ("layer", "component", "message"),
    [
        (4, "residual", r"Layer 4 does not exist: tiny-llama has 4 layers, 0 to 3"),
        (-1, "residual", r"Layer -1 does not exist"),
        (None, "mlp", r"needs a layer"),
        (0, "mpl", r"(?s)Unknown component 'mpl'.*residual_pre, attention.*Did you mean mlp"),
        (None, "model.layers.0.mlp.dwn_proj:in", r"(?s)no module.*Did you mean model\.layers\.\d\.mlp\.down_proj"),
        (None, "model.layers.0.mlp:output", r"ends in ':in' or ':out', not ':output'"),
        (None, "model.embed_tokens:in", r"does not carry one activation.*':out' does"),
        (None, "lm_head:out", r"does not run when the model reads text"),
        (1, "model.layers.0.mlp:out", r"lies in layer 0, but layer 1"),
    ],
)
def test_what_does_not_exist_is_named(
    tiny_llama: LanguageModel, layer: int | None, component: str, message: str
) -> None:
    with pytest.raises(HookPointError, match=message):
        resolve_hook(tiny_llama, layer, component)


def test_a_missing_component_says_which_exist() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    from neuronmap.models import wrap_model

    model = wrap_model(MambaForCausalLM(MambaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2, state_size=4)))
    with pytest.raises(
        HookPointError, match=r"(?s)'mlp' could not be found.*attention, attention_heads, residual.*path"
    ):
        resolve_hook(model, 1, "mlp")


def test_a_module_that_runs_twice_is_refused() -> None:
    from transformers import PhiConfig, PhiForCausalLM

    from neuronmap.models import wrap_model

    config = PhiConfig(vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    with pytest.raises(HookPointError, match="runs 2 times"):
        resolve_hook(wrap_model(PhiForCausalLM(config)), None, "model.layers.0.resid_dropout:out")


def test_names(tiny_llama: LanguageModel) -> None:
    hook = resolve_hook(tiny_llama, 1, "residual_pre")
    assert (hook.name, hook.slug) == ("model.layers.1:in", "model.layers.1-in")
    assert HookPoint.from_dict(hook.to_dict()) == hook
    assert saelens_hook_name(hook) is None
    assert saelens_hook_name(resolve_hook(tiny_llama, 1, "residual")) == "model.layers.1"
    slugs = {hook.slug for hook in list_hooks(tiny_llama)}
    assert len(slugs) == 4 * len(COMPONENTS)
