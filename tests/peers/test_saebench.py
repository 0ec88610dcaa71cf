"""What we export for SAEBench is read by its own result classes, number for number; see ``test_saelens.py`` for how it is run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.peers.running import run_script

from neuronmap.concepts import get_concepts
from neuronmap.corpora import open_corpus, tokenize
from neuronmap.evaluation.metrics import Estimate
from neuronmap.evaluation.suites import SuiteResult, evaluate_suites
from neuronmap.evaluation.suites.record import AbsorptionOf, AbsorptionSuite, LetterAbsorption
from neuronmap.evaluation.suites.saebench import UNMEASURED, saebench_documents
from neuronmap.evaluation.suites.settings import SuiteSettings
from neuronmap.models import LanguageModel
from neuronmap.paths import read_json, write_json
from neuronmap.progress import SilentProgress
from neuronmap.saes import get_architecture

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(
        not os.environ.get("NEURONMAP_PEERS_PYTHON"),
        reason="NEURONMAP_PEERS_PYTHON does not name an interpreter with sae-bench; `make test-peers` makes one",
    ),
]


def letter(name: str, fraction: float, full: int, latents: tuple[int, ...]) -> LetterAbsorption:
    return LetterAbsorption(
        letter=name,
        main_latents=latents,
        main_f1=0.9,
        probe_true_positives=20,
        absorption_fraction=fraction,
        full_absorption=full,
    )


@pytest.fixture(scope="module")
def exchanged(
    tiny_llama: LanguageModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our documents, and what SAEBench reads in them."""
    architecture = get_architecture("topk")
    sae = architecture(32, 48, architecture.Options(k=4))
    sae.initialise(torch.zeros(32), torch.Generator().manual_seed(0))
    texts = [f"Document {number}: the quick brown fox jumps over {number * 7} lazy dogs." for number in range(40)]
    tokens = tokenize(
        open_corpus(texts), tiny_llama.tokenizer, context_length=16, part="all", progress=SilentProgress()
    )
    measured = evaluate_suites(
        sae,
        ("core", "probing"),
        model=tiny_llama,
        tokens=tokens,
        hook="model.layers.1:out",
        concepts=get_concepts("grammatical_number:lexical"),
        settings=SuiteSettings(max_tokens=64, max_ce_tokens=32, fit_rows=64, ks=(1, 2, 5), items=40, bootstrap=50),
        progress=SilentProgress(),
    )
    share = Estimate(value=0.15, low=0.1, high=0.2, count=40)
    absorption = AbsorptionSuite(
        possible=True,
        reason=None,
        words=400,
        letters_reached=20,
        probe_f1={"a": 0.9, "b": 0.8},
        template="{word} has the first letter:",
        dictionaries={
            "sae": AbsorptionOf(
                mean_absorption_fraction=share,
                mean_full_absorption=share,
                mean_main_f1=0.9,
                mean_main_latents=1.5,
                letters=(letter("a", 0.1, 2, (3,)), letter("b", 0.2, 4, (5, 6))),
            )
        },
    )
    core = measured.suites["core"]
    made = {**measured.suites, "absorption": core.model_copy(update={"result": absorption})}
    documents = saebench_documents(SuiteResult(suites=made), "demo", {"architecture": "topk"})
    folder = tmp_path_factory.mktemp("saebench")
    for kind, document in documents.items():
        write_json(folder / f"{kind}.json", document)
    run_script(Path(__file__).parent / "scripts" / "saebench_exchange.py", folder)
    return documents, read_json(folder / "read.json")


def test_every_number_arrives(exchanged: tuple[dict[str, Any], dict[str, Any]]) -> None:
    ours, read = exchanged
    assert set(read) == {"core", "sparse_probing", "absorption_first_letter"}
    for kind, document in ours.items():
        for category, figures in document["eval_result_metrics"].items():
            for name, value in figures.items():
                assert read[kind]["eval_result_metrics"][category][name] == value, (kind, category, name)
    assert 0 < read["core"]["eval_result_metrics"]["sparsity"]["l0"] <= 4
    letters = read["absorption_first_letter"]["eval_result_details"]
    assert [row["full_absorption_rate"] for row in letters] == [0.1, 0.2]


def test_what_was_not_measured_is_its_own_mark(exchanged: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, read = exchanged
    misc = read["core"]["eval_result_metrics"]["misc_metrics"]
    assert misc["average_max_encoder_cosine_sim"] == UNMEASURED
    assert misc["frac_alive"] > 0
    assert read["sparse_probing"]["eval_result_metrics"]["sae"]["sae_top_10_test_accuracy"] is None
