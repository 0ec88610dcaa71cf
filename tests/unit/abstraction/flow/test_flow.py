"""From a model, SAEs and a text to the record; ablation where the truth is known; what cannot be followed is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from planted_flow import random_code, shared
from random_saes import random_sae
from token_sets import Notes, PlainTokens

from neuronmap.abstraction.flow import Place, ablation_effects, encode_shared, feature_flow, flow_warnings
from neuronmap.abstraction.flow.ablation import contexts_of
from neuronmap.abstraction.flow.edges import Edge, PairFlow
from neuronmap.abstraction.flow.shown import choose_shown, masses_of
from neuronmap.abstraction.record import FeatureFlow
from neuronmap.errors import EmptyCorpusError, InputError, MismatchError
from neuronmap.models import LanguageModel, resolve_hook, wrap_model
from neuronmap.progress import SilentProgress
from neuronmap.saes import SparseAutoencoder, get_architecture

QUIET = SilentProgress()


def at(model: LanguageModel, *layers: int, component: str = "residual") -> list[tuple[str, SparseAutoencoder, Any]]:
    return [
        (f"sae-{layer}", random_sae(model, layer, features=48, k=3), resolve_hook(model, layer, component))
        for layer in layers
    ]


@pytest.fixture(scope="module")
def still(tiny_tokenizer: Any) -> LanguageModel:
    """A Llama whose blocks 1 to 3 add nothing: what leaves block 0 arrives everywhere as it is."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = LlamaForCausalLM(config)
    with torch.no_grad():
        for block in module.model.layers[1:]:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    return wrap_model(module, tiny_tokenizer, name="still")


@pytest.fixture(scope="module")
def flow(still: LanguageModel) -> FeatureFlow:
    """Layer 2's SAE has layer 0's features in reverse order."""
    (name, sae, hook), (other_name, other, other_hook) = at(still, 0, 2)
    with torch.no_grad():
        for parameter, given in ((other.W_dec, sae.W_dec.flip(0)), (other.W_enc, sae.W_enc.flip(1))):
            parameter.copy_(given)
        other.b_dec.copy_(sae.b_dec)
    return feature_flow(
        still, [(other_name, other, other_hook), (name, sae, hook)], PlainTokens(100, 32, 290), shown=8,
        labels={"sae-2": dict.fromkeys(range(48), "the same")}, progress=QUIET,
    )  # fmt: skip


def test_features_that_stay_are_passed_through(flow: FeatureFlow) -> None:
    assert (flow.saes, flow.layers) == (["sae-0", "sae-2"], [0, 2])
    assert flow.tokens == int(PlainTokens(100, 32, 290).kept().sum())
    (counts,) = flow.counts
    tested = 48 - counts["untested"] // 2
    assert counts["pass-through"] == tested > 10
    assert sum(counts.values()) - counts["untested"] == tested
    assert flow.reproduced is not None
    assert flow.reproduced[0] is not None
    assert flow.reproduced[0] > 0.7
    for layer in (0, 2):
        nodes = [node for node in flow.nodes if node.layer == layer]
        assert len(nodes) == 8
        assert [node.mass for node in nodes] == sorted((node.mass for node in nodes), reverse=True)
        assert all(node.label == ("the same" if layer else None) for node in nodes)
    assert len(flow.edges) == 8
    for edge in flow.edges:
        source, target = flow.nodes[edge.source], flow.nodes[edge.target]
        assert source.feature == 47 - target.feature
        assert (edge.kind, edge.jaccard) == ("pass-through", 1.0)
        assert edge.cosine == pytest.approx(1.0)
        assert edge.correlation == pytest.approx(1.0)
        assert edge.support == round(source.density * flow.tokens)
        assert edge.ablation is not None
        assert edge.ablation < 0


def test_a_record_is_plain_json_and_a_seed_decides_it(flow: FeatureFlow, still: LanguageModel) -> None:
    assert FeatureFlow.from_dict(json.loads(json.dumps(flow.to_dict(), allow_nan=False))) == flow
    runs = [
        feature_flow(still, at(still, 0, 1, 3), PlainTokens(40, 32, 290), seed=5, batch_tokens=batch, progress=QUIET)
        for batch in (64, 1280)
    ]
    one, two = (run.to_dict() for run in runs)
    assert [node["feature"] for node in one["nodes"]] == [node["feature"] for node in two["nodes"]]
    assert one["counts"] == two["counts"]
    assert len(one["counts"]) == len(one["cosine_null"]) == len(one["reproduced"]) == 2


def linear_sae(model: LanguageModel, seed: int) -> SparseAutoencoder:
    """ReLU features with a bias: linear where they are active."""
    cls = get_architecture("relu")
    sae = cls(model.hidden_size, 24)
    sae.initialise(torch.zeros(model.hidden_size), torch.Generator().manual_seed(seed))
    with torch.no_grad():
        sae.get_parameter("b_enc").fill_(100.0)  # always active, so that nothing is cut off
        sae.get_parameter("b_enc")[5] = 0.0
    return sae.requires_grad_(False)


def test_ablation_equals_what_a_linear_model_says(still: LanguageModel) -> None:
    """Blocks that add nothing: zeroing f_i moves the later pre-activation j by -f_i w_i . e_j, exactly."""
    tokens = PlainTokens(6, 16, 290)
    saes = [linear_sae(still, 1), linear_sae(still, 2)]
    hooks = [resolve_hook(still, layer, "residual") for layer in (0, 3)]
    codes = encode_shared(still, list(zip(saes, hooks, strict=True)), tokens, progress=QUIET)
    earlier, later = (Place(sae, hook, code) for sae, hook, code in zip(saes, hooks, codes.codes, strict=True))
    pairs = [(5, 0), (5, 7), (9, 3)]
    found = ablation_effects(still, tokens, codes, earlier, later, pairs, contexts=99, batch_contexts=4)
    for source, target in pairs:
        value_N = codes.codes[0][:, [source]].toarray().ravel()
        moved = float(saes[0].W_dec[source] @ saes[1].W_enc[:, target])
        assert found[source, target] == pytest.approx(-value_N[value_N > 0].mean() * moved, rel=1e-3, abs=1e-4)
    one_by_one = ablation_effects(still, tokens, codes, earlier, later, pairs, contexts=99, batch_contexts=1)
    assert one_by_one == pytest.approx(found, rel=1e-4, abs=1e-4)


def test_features_are_set_to_zero_where_they_fire_most() -> None:
    f_NF = np.zeros((6 * 4, 2), np.float32)
    f_NF[[0, 8, 9, 12, 13, 14, 23], 0] = 1.0
    codes = shared([f_NF], contexts=6, length=5)
    found = contexts_of(0, codes.codes[0], codes, 2)
    assert {context: rows.tolist() for context, rows in found.items()} == {3: [12, 13, 14], 2: [8, 9]}
    assert contexts_of(1, codes.codes[0], codes, 2) == {}


def edge(source: int, target: int, group: int, kind: Any = "pass-through", support: int = 50) -> Edge:
    return Edge(source, target, kind, group, 0.9, 0.9, 0.9, 0.9, 0.9, support)


def test_the_heaviest_units_are_shown_and_a_split_is_whole_or_not_at_all() -> None:
    flows = [
        PairFlow([edge(0, 0, 0), edge(1, 1, 1, "split"), edge(1, 2, 1, "split"), edge(2, 3, 2)], [], [], 0.1, 0.1),
        PairFlow([edge(0, 0, 0), edge(3, 1, 1, support=99)], [], [], 0.1, 0.1),
    ]
    masses = [np.array([0.5, 0.2, 0.1]), np.array([0.5, 0.1, 0.1, 0.05]), np.array([0.6, 0.4])]
    two = choose_shown(flows, masses, 2)
    assert two.nodes == [(0, 0), (0, 2), (1, 0), (1, 3), (2, 0), (2, 1)]  # no room for both parts of the split
    assert [(pair, e.source, e.target) for pair, e in two.edges] == [(0, 0, 0), (0, 2, 3), (1, 3, 1), (1, 0, 0)]
    three = choose_shown(flows, masses, 3, [{1: "carries"}, {}, {}])
    assert {(0, 1), (1, 1), (1, 2)} <= set(three.nodes)
    assert choose_shown([PairFlow([], [], [], 1.0, 1.0)], masses, 3).nodes == []


def test_masses_are_shares() -> None:
    code = shared([random_code(5, 0)]).codes[0]
    np.testing.assert_allclose(masses_of(code), code.toarray().sum(0) / code.toarray().sum(), rtol=1e-5)
    assert masses_of(code * 0).tolist() == [0.0] * 5


def test_what_cannot_be_followed_is_refused(tiny_llama: LanguageModel, tiny_gpt2: LanguageModel) -> None:
    tokens, saes = PlainTokens(20, 16, 290), at(tiny_llama, 0, 2)

    def refused(given: Any, error: type[Exception], says: str, text: Any = tokens, **options: Any) -> None:
        with pytest.raises(error, match=says):
            feature_flow(tiny_llama, given, text, progress=QUIET, **options)

    refused(saes[:1], InputError, "1 SAE was given")
    refused([saes[0], (saes[0][0], *saes[1][1:])], InputError, "twice: sae-0, sae-0")
    mlp = ("mlp", random_sae(tiny_llama, 2), resolve_hook(tiny_llama, 2, "mlp"))
    refused([*saes, mlp], InputError, "both read layer 2")
    other = ("other", random_sae(tiny_gpt2, 1), resolve_hook(tiny_llama, 1, "residual"))
    refused([saes[0], other], MismatchError, "other was trained with tiny-gpt2")
    wide = ("wide", random_sae(tiny_llama, 1), resolve_hook(tiny_llama, 1, "mlp_hidden"))
    refused([saes[0], wide], MismatchError, "width 32, but .* has width 96")
    outside = ("norm", random_sae(tiny_llama, 1), resolve_hook(tiny_llama, component="model.norm:out"))
    refused([saes[0], outside], InputError, "in no block")
    refused(saes, InputError, "7 contexts of 16 tokens; at least 8", PlainTokens(7, 16, 290))
    refused(saes, InputError, "shown = 0", shown=0)
    nothing = PlainTokens(1, 16, 290)
    nothing.num_contexts = 0
    refused(saes, EmptyCorpusError, "no tokens", nothing)


def test_carriers_of_a_concept_are_shown_first(still: LanguageModel) -> None:
    saes, tokens = at(still, 0, 1), PlainTokens(60, 32, 290)
    saes[1][1].load_state_dict(saes[0][1].state_dict())
    everything = feature_flow(still, saes, tokens, ablation_contexts=0, progress=QUIET)
    least = [node for node in everything.nodes if node.layer == 0][-1]
    chosen = feature_flow(
        still, saes, tokens, shown=1, concepts={"sae-0": {least.feature: {"number": 0.9}}}, ablation_contexts=0,
        progress=QUIET,
    )  # fmt: skip
    assert [node.concepts for node in chosen.nodes] == [{"number": 0.9}, {}]
    assert chosen.nodes[0].feature == least.feature
    assert [one.ablation for one in chosen.edges] == [None]


def test_saes_that_started_alike_are_named(tiny_llama: LanguageModel) -> None:
    saes = at(tiny_llama, 0, 1, 2)
    assert flow_warnings(saes) == []
    for (_, sae, _), seed in zip(saes, (4, 3, 4), strict=True):
        assert sae.provenance is not None
        sae.provenance = replace(sae.provenance, metadata=sae.provenance.metadata.updated(seed=seed))
    (warning,) = flow_warnings(saes)
    assert "sae-0, sae-2 were trained from the same initial directions (seed 4)" in warning
    notes = Notes()
    feature_flow(tiny_llama, saes, PlainTokens(20, 16, 290), ablation_contexts=0, progress=notes)
    assert warning in notes.lines
