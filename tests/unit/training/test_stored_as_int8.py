"""int8 rows from text to analysis: harvested, trained on, measured, read by the feature pass; sources mixed and repeats dropped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from neuronmap.activations import ActivationStore
from neuronmap.evaluation import evaluate_sae
from neuronmap.features.collect.rows import StoredRows
from neuronmap.models import LanguageModel
from neuronmap.progress import SilentProgress
from neuronmap.training import SAEConfig, SAETrainer, TrainingResult

FIELDS = {
    "layer": 2, "architecture": "topk", "hidden_dim": 64, "k": 8, "context_length": 32, "batch_size": 8, "num_epochs": 30,
    "learning_rate": 3e-3, "heldout_fraction": 0.2, "device": "cpu",
}  # fmt: skip


def train(model: LanguageModel, corpus: str, **fields: object) -> TrainingResult:
    config = SAEConfig.from_dict({**FIELDS, **fields, "corpus": corpus})
    return SAETrainer(config, progress=SilentProgress()).train(model=model)


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """A mixture of two files, one with every line twice."""
    for name, times in (("once", 1), ("twice", 2)):
        lines = [
            f'{{"text": "the {name} river froze in {year} and {year % 13} children walked over it"}}'
            for year in range(1700, 1760)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines * times))
    return f"mix:1*{tmp_path}/once.jsonl,1*{tmp_path}/twice.jsonl;go_on"


def test_an_sae_from_int8_rows_is_as_good_as_from_float32_rows(tiny_llama: LanguageModel, corpus: str) -> None:
    found = {name: train(tiny_llama, corpus, store_dtype=name, deduplicate=True) for name in ("float32", "int8")}
    int8 = found["int8"]
    store = int8.data.rows
    assert isinstance(store, ActivationStore)
    assert store.row_format.name == "int8"
    assert int8.data.heldout_tokens is not None
    assert store.manifest["tokens"]["report"]["duplicates"] == 60
    assert "mixture of 0.5 once, 0.5 twice" in store.manifest["tokens"]["report"]["source"]
    values = {name: float(one.metrics["summary"]["explained_variance"]) for name, one in found.items()}
    assert values["float32"] > 0.5
    assert values["int8"] == pytest.approx(values["float32"], abs=0.01)
    measured = evaluate_sae(int8.sae, store, bootstrap=0, progress=SilentProgress())
    assert measured.protocol.rows_dtype == "int8"


def test_the_feature_pass_reads_int8_rows(tiny_llama: LanguageModel, corpus: str) -> None:
    result = train(tiny_llama, corpus, store_dtype="int8", num_epochs=2)
    store = result.data.rows
    assert isinstance(store, ActivationStore)
    from neuronmap.corpora import open_corpus, tokenize

    tokens = tokenize(
        open_corpus(corpus), tiny_llama.tokenizer, context_length=32, part="train", heldout_fraction=0.2,
        tokenizer_digest=tiny_llama.identity.tokenizer_digest, progress=SilentProgress(),
    )  # fmt: skip
    rows = StoredRows(store, tokens)
    blocks = list(rows.blocks(range(1), 4))
    block = blocks[0][store.hook["name"]]
    assert block.x_BD.dtype == torch.float32
    assert torch.equal(block.x_BD, store.read(0, len(block.x_BD)))
