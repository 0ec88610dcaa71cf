"""Activations at the tokens that are read: the same as in a plain forward pass, whatever the batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from neuronmap.abstraction.layers import sample as sampling
from neuronmap.abstraction.layers.sample import reads_later_tokens, sample_layers
from neuronmap.abstraction.layers.windows import Window
from neuronmap.errors import HookPointError, InputError, MismatchError
from neuronmap.models import LanguageModel, wrap_model
from neuronmap.progress import SilentProgress, Task

QUIET = SilentProgress()


def windows(count: int = 20, length: int = 24, seed: int = 0) -> list[Window]:
    rng = np.random.default_rng(seed)
    return [
        Window(tuple(rng.integers(3, 300, length).tolist()), (int(rng.integers(4, length)),), int(context))
        for context in rng.permutation(count) + 5
    ]


def hidden_states(model: LanguageModel, window: Window, length: int) -> list[torch.Tensor]:
    with torch.inference_mode():
        found = model.backbone(input_ids=torch.tensor([window.ids[:length]]), output_hidden_states=True)
    return [state[0].clone() for state in found.hidden_states]


def test_rows_are_those_of_a_plain_forward_pass(tiny_llama: LanguageModel) -> None:
    given = windows()
    found = sample_layers(tiny_llama, given, progress=QUIET)
    assert (found.layers, tuple(found.x_LNW.shape)) == ((0, 1, 2, 3, 4), (5, 20, 32))
    for row, window in enumerate(given):
        states = hidden_states(tiny_llama, window, 24)
        for layer in range(4):  # the last hidden state is after the final norm
            expected_W = states[layer][window.reads[0]]
            torch.testing.assert_close(found.x_LNW[layer, row], expected_W, atol=1e-5, rtol=1e-4)
    order = np.argsort([window.context for window in given])
    assert found.context_N[torch.from_numpy(order)].tolist() == list(range(20))
    firsts = [hidden_states(tiny_llama, window, 24)[2][0].norm() for window in given]
    assert float(found.first_norm_L[2]) == pytest.approx(float(torch.stack(firsts).mean()), rel=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_and_padding_side_do_not_matter(tiny_llama: LanguageModel, side: str) -> None:
    given, before = windows(), tiny_llama.tokenizer.padding_side
    expected = sample_layers(tiny_llama, given, batch_windows=64, progress=QUIET)
    tiny_llama.tokenizer.padding_side = side
    try:
        found = sample_layers(tiny_llama, given, batch_windows=1, progress=QUIET)
    finally:
        tiny_llama.tokenizer.padding_side = before
    torch.testing.assert_close(found.x_LNW, expected.x_LNW, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.first_norm_L, expected.first_norm_L, atol=1e-5, rtol=1e-5)


def test_two_reads_of_a_window_are_rows_of_one_context(tiny_gpt2: LanguageModel) -> None:
    given = [Window(window.ids, (3, 17), window.context) for window in windows(6)]
    found = sample_layers(tiny_gpt2, given, layers=[3, 1], progress=QUIET)
    assert found.layers == (1, 3)
    assert found.context_N[0::2].tolist() == found.context_N[1::2].tolist()
    states = hidden_states(tiny_gpt2, given[4], 24)
    torch.testing.assert_close(found.x_LNW[1, 8], states[3][3], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.x_LNW[1, 9], states[3][17], atol=1e-5, rtol=1e-4)


def test_an_encoder_reads_the_whole_window(tiny_bert: LanguageModel, tiny_llama: LanguageModel) -> None:
    assert reads_later_tokens(tiny_bert)
    assert not reads_later_tokens(tiny_llama)
    given = windows(8)
    found = sample_layers(tiny_bert, given, progress=QUIET)
    for row, window in enumerate(given):
        states = hidden_states(tiny_bert, window, 24)
        for layer in range(3):
            torch.testing.assert_close(found.x_LNW[layer, row], states[layer][window.reads[0]], atol=1e-5, rtol=1e-4)


def test_a_large_sample_lies_in_a_file(tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sample_layers(tiny_gpt2, windows(), progress=QUIET)
    monkeypatch.setattr(sampling, "MEMORY_BYTES", 100)
    found = sample_layers(tiny_gpt2, windows(), progress=QUIET)
    assert torch.equal(found.x_LNW, expected.x_LNW)


def test_what_cannot_be_read(tiny_gpt2: LanguageModel) -> None:
    with pytest.raises(HookPointError, match=r"Layer 5 .* layers 0 \(the embedding\) to 4"):
        sample_layers(tiny_gpt2, windows(2), layers=[0, 5], progress=QUIET)
    with pytest.raises(InputError, match="takes at most 64"):
        sample_layers(tiny_gpt2, windows(2, length=65), progress=QUIET)
    with pytest.raises(MismatchError, match="another model"):
        sample_layers(tiny_gpt2, [Window((1, 2, 5000), (2,), 0)], progress=QUIET)
    with pytest.raises(InputError, match="no windows"):
        sample_layers(tiny_gpt2, [], progress=QUIET)


def test_activations_that_are_not_finite(tiny_gpt2: LanguageModel) -> None:
    from copy import deepcopy

    broken = wrap_model(deepcopy(tiny_gpt2.module), tiny_gpt2.tokenizer, name="broken")
    broken.blocks.modules[2].mlp.c_proj.bias.data.fill_(torch.inf)
    with pytest.raises(InputError, match="broken gives NaN or infinite activations at layer 3"):
        sample_layers(broken, windows(3), progress=QUIET)


def test_an_interrupt_leaves_no_hook_behind(tiny_gpt2: LanguageModel) -> None:
    class Impatient(SilentProgress):
        @contextmanager
        def task(self, title: str, total: int | None, unit: str) -> Iterator[Task]:
            class Interrupting:
                def advance(self, amount: int, **figures: str) -> None:
                    raise KeyboardInterrupt

            yield Interrupting()

    def hooks() -> int:
        modules = tiny_gpt2.module.modules()
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)

    before = hooks()
    with pytest.raises(KeyboardInterrupt):
        sample_layers(tiny_gpt2, windows(4), progress=Impatient())
    assert hooks() == before
    sample_layers(tiny_gpt2, windows(4), progress=QUIET)
