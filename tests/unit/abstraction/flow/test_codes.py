"""One pass for all SAEs: the same rows, what each SAE's own encoder gives, whatever the batch size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pass_parts import small_sae
from random_saes import random_sae
from token_sets import Notes, PlainTokens

from neuronmap.abstraction.flow import codes as codes_module
from neuronmap.abstraction.flow.codes import encode_rows, encode_shared
from neuronmap.activations import MaskConfig
from neuronmap.activations.extract import calibrate
from neuronmap.errors import EmptyCorpusError, InputError, MemoryExhaustedError, MismatchError
from neuronmap.models import LanguageModel, capture, resolve_hook
from neuronmap.progress import SilentProgress

QUIET = SilentProgress()


def test_codes_are_those_of_the_kept_rows_at_every_layer(tiny_llama: LanguageModel) -> None:
    tokens = PlainTokens(9, 16, 290)
    kept = tokens.kept()
    saes = [
        (random_sae(tiny_llama, layer, seed=layer), resolve_hook(tiny_llama, layer, "residual")) for layer in (0, 2)
    ]
    found = encode_shared(tiny_llama, saes, tokens, batch_tokens=64, progress=QUIET)
    context, place = np.nonzero(kept)
    np.testing.assert_array_equal(found.context_N, context)
    np.testing.assert_array_equal(found.place_N, place)
    ids_BT, mask_BT = torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.attention.astype(np.int64))
    x = capture(tiny_llama, ids_BT, [hook for _, hook in saes], attention_mask_BT=mask_BT)
    for (sae, hook), code_NF in zip(saes, found.codes, strict=True):
        expected_NF = sae.encode(x[hook.name][torch.from_numpy(kept)]).numpy()
        np.testing.assert_allclose(code_NF.toarray(), expected_NF, atol=1e-4)
        assert code_NF.dtype == np.float32
        assert code_NF.data.min() > 0
    other = encode_shared(tiny_llama, [*saes, saes[0]], tokens, batch_tokens=16, progress=QUIET)
    for one, two in zip([*found.codes, found.codes[0]], other.codes, strict=True):
        np.testing.assert_allclose(one.toarray(), two.toarray(), atol=1e-4)


def test_a_row_that_is_an_outlier_at_one_hook_is_left_out_at_all(
    tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = MaskConfig(outlier_factor=1.1)
    monkeypatch.setattr(codes_module, "FLOW_MASK", mask)
    tokens = PlainTokens(9, 16, 290)
    hooks = [resolve_hook(tiny_llama, layer, "residual") for layer in (0, 2)]
    saes = [(random_sae(tiny_llama, layer), hook) for layer, hook in zip((0, 2), hooks, strict=True)]
    notes = Notes()
    found = encode_shared(tiny_llama, saes, tokens, progress=notes)
    limits = calibrate(tiny_llama, tokens, hooks, mask, QUIET)
    ids_BT, mask_BT = torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.attention.astype(np.int64))
    x = capture(tiny_llama, ids_BT, hooks, attention_mask_BT=mask_BT)
    inside = [x[hook.name].norm(dim=2).numpy() <= float(limits[hook.name].outlier_threshold or 0) for hook in hooks]
    kept = tokens.kept() & inside[0] & inside[1]
    left_out = int(tokens.kept().sum() - kept.sum())
    assert left_out > int((tokens.kept() & ~inside[0]).sum()) > 0
    assert f"{left_out} tokens with outlying norms are left out at all layers." in notes.text
    np.testing.assert_array_equal(np.stack([found.context_N, found.place_N]), np.nonzero(kept))
    for (sae, hook), code_NF in zip(saes, found.codes, strict=True):
        expected_NF = sae.encode(x[hook.name][torch.from_numpy(kept)]).numpy()
        np.testing.assert_allclose(code_NF.toarray(), expected_NF, atol=1e-4)


@pytest.mark.parametrize("architecture", ["relu", "jumprelu", "topk", "batchtopk"])
def test_rows_are_encoded_alike_by_every_architecture(architecture: str) -> None:
    sae = small_sae(architecture, 12)
    x_ND = 3.0 * torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(encode_rows(sae, x_ND).toarray(), sae.encode(x_ND).detach().numpy(), atol=1e-5)
    assert encode_rows(sae, x_ND[:0]).shape == (0, 24)


def test_what_cannot_be_read_is_refused(tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    sae, hook = random_sae(tiny_llama), resolve_hook(tiny_llama, 1, "residual")
    empty = PlainTokens(4, 8, 290)
    empty.special[:] = True
    with pytest.raises(EmptyCorpusError, match="mask drops every position"):
        encode_shared(tiny_llama, [(sae, hook)], empty, progress=QUIET)
    with pytest.raises(InputError, match="at most 64"):
        encode_shared(tiny_llama, [(sae, hook)], PlainTokens(2, 80, 290), progress=QUIET)
    with pytest.raises(MismatchError, match="outside the vocabulary"):
        encode_shared(tiny_llama, [(sae, hook)], PlainTokens(2, 8, 5000), progress=QUIET)
    with pytest.raises(InputError, match=r"\[rows, 32\], not \[3, 5\]"):
        encode_rows(sae, torch.zeros(3, 5))
    monkeypatch.setattr(codes_module, "_MOST_ENTRIES", 100)
    with pytest.raises(MemoryExhaustedError, match="over 100 active features"):
        encode_shared(tiny_llama, [(sae, hook)], PlainTokens(9, 16, 290), progress=QUIET)


def test_a_damaged_sae_is_named_as_such() -> None:
    sae = small_sae("relu", 12)
    with torch.no_grad():
        sae.get_parameter("b_enc")[3] = float("nan")
    with pytest.raises(InputError, match="NaN or infinite activations at the rows"):
        encode_rows(sae, torch.randn(4, 12))
