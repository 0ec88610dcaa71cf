"""What a worker opens: the driver's own store and model, by digest, or an error that says what to do."""

from __future__ import annotations

import copy
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "activations"))

from token_sets import PlainTokens

from neuronmap.activations import harvest
from neuronmap.errors import InputError, MismatchError
from neuronmap.hub.opening import ModelSettings
from neuronmap.hub.spreading import SentModel, SentStoredRows
from neuronmap.models import load_model, resolve_hook
from neuronmap.progress import SilentProgress

QUIET = SilentProgress()


def test_a_store_is_opened_by_its_folder_and_refused_if_it_is_another(tiny_llama, tmp_path: Path) -> None:
    tokens = PlainTokens(20, 16)
    hooks = [resolve_hook(tiny_llama, layer, "residual") for layer in (1, 2)]
    one, two = harvest(tiny_llama, tokens, hooks, root=tmp_path / "stores", progress=QUIET).values()
    sent = pickle.loads(pickle.dumps(SentStoredRows.of(one, one.name, None)))
    rows = sent.open(tokens, QUIET)
    torch.testing.assert_close(rows.store.read(0, 9), one.read(0, 9), rtol=0, atol=0)
    shutil.rmtree(one.path)
    with pytest.raises(InputError, match="is not to be seen") as missing:
        sent.open(tokens, QUIET)
    assert "--store s3://" in missing.value.hint
    shutil.copytree(two.path, one.path)
    with pytest.raises(MismatchError, match="another one than on the host that asks"):
        sent.open(tokens, QUIET)


def test_a_model_is_opened_by_its_name_and_refused_if_it_is_another(tiny_llama, tmp_path: Path) -> None:
    copy.deepcopy(tiny_llama.module).save_pretrained(tmp_path / "model")  # saving adds to the configuration
    tiny_llama.tokenizer.save_pretrained(tmp_path / "model")
    model = load_model(tmp_path / "model", device="cpu", progress=QUIET)
    settings = ModelSettings(str(tmp_path / "model"), None, "auto", "cpu")
    sent = pickle.loads(pickle.dumps(SentModel.of(model, settings)))
    again = sent.open(QUIET)
    assert again.identity == model.identity
    assert again.attention == model.attention
    other = model.module
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    other.save_pretrained(tmp_path / "model")
    with pytest.raises(MismatchError, match="is another one here"):
        sent.open(QUIET)
