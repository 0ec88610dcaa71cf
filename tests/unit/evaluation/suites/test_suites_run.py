"""Suites on a small language model: one pass for all, records that are kept and found again, interruption, SAEBench's form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from neuronmap.concepts import concept_from_texts
from neuronmap.errors import ConfigError, InputError
from neuronmap.evaluation.suites import SuiteRecord, evaluate_suites
from neuronmap.evaluation.suites.probe_data import probe_files, sae_probe_sets
from neuronmap.evaluation.suites.record import CoreSuite, ProbingSuite
from neuronmap.evaluation.suites.saebench import saebench_documents
from neuronmap.evaluation.suites.settings import SuiteSettings
from neuronmap.progress import SilentProgress
from neuronmap.saes import get_architecture

if TYPE_CHECKING:
    from neuronmap.concepts import Concept
    from neuronmap.models import LanguageModel
    from neuronmap.saes import SparseAutoencoder

SMALL = SuiteSettings(
    max_tokens=64, max_ce_tokens=32, fit_rows=64, ks=(1, 2), items=40, meta_steps=3, bootstrap=50, words_per_letter=8
)
HOOK = "model.layers.1:out"


@pytest.fixture(scope="module")
def sae() -> SparseAutoencoder:
    architecture = get_architecture("topk")
    made = architecture(32, 48, architecture.Options(k=4))
    made.initialise(torch.zeros(32), torch.Generator().manual_seed(0))
    return made


@pytest.fixture(scope="module")
def concept() -> Concept:
    words = [
        "dog",
        "fox",
        "river",
        "citizen",
        "child",
        "digit",
        "number",
        "school",
        "state",
        "union",
        "brown",
        "winter",
    ]
    return concept_from_texts(
        "toy",
        positive=[f"The {word} is strong" for word in words],
        negative=[f"The {word} was lazy" for word in words],
    )


def run(sae, model, tokens, suites=("core", "probing"), **more):  # type: ignore[no-untyped-def]
    return evaluate_suites(
        sae, suites, model=model, tokens=tokens, hook=HOOK, settings=SMALL, progress=SilentProgress(), **more
    )


def test_every_table_holds_the_baselines(sae, tiny_llama: LanguageModel, tokens, concept) -> None:  # type: ignore[no-untyped-def]
    result = run(sae, tiny_llama, tokens, ("core", "probing", "structure"), concepts=[concept])
    core = result.suites["core"].result
    assert isinstance(core, CoreSuite)
    assert set(core.baselines) == {"identity", "pca", "random", "neurons"}
    identity = core.baselines["identity"]
    assert identity.reconstruction.explained_variance.value == pytest.approx(1.0)
    assert identity.behaviour is not None
    assert identity.behaviour.kl_sae.value == pytest.approx(0.0, abs=1e-5)
    assert identity.behaviour.ce_score_zero is not None
    assert identity.behaviour.ce_score_mean is not None
    assert core.sae.sparsity.l0.value == core.baselines["pca"].sparsity.l0.value == 4
    assert core.sae.protocol.tokens == identity.protocol.tokens
    assert "first half" in str(result.suites["core"].protocol.fitted_on)
    probing = result.suites["probing"].result
    assert isinstance(probing, ProbingSuite)
    assert set(probing.means) == {"sae", "identity", "pca", "random", "neurons", "dense"}
    figures = {row.figure for row in result.rows()}
    assert {"explained_variance", "auc_k1", "meta_explained", "share_above_09"} <= figures
    summary = result.summary()
    assert summary["probing_auc_k1"] == probing.means["sae"][0].auc.value
    again = SuiteRecord.from_dict(json.loads(json.dumps(result.suites["probing"].to_dict())))
    assert again == result.suites["probing"]


def test_what_was_measured_on_equal_inputs_is_not_measured_again(
    sae, tiny_llama: LanguageModel, tokens, concept
) -> None:  # type: ignore[no-untyped-def]
    kept: dict[tuple[str, str], SuiteRecord] = {}

    def keep(record: SuiteRecord) -> None:
        kept[record.result.suite, record.key] = record
        if record.result.suite == "core":
            raise KeyboardInterrupt  # after the first suite is kept, before the second

    with pytest.raises(KeyboardInterrupt):
        run(sae, tiny_llama, tokens, concepts=[concept], keep=keep)
    assert [suite for suite, _ in kept] == ["core"]
    measured: list[str] = []
    result = run(
        sae, tiny_llama, tokens, concepts=[concept], stored=lambda suite, key: kept.get((suite, key)),
        keep=lambda record: measured.append(record.result.suite),
    )  # fmt: skip
    assert measured == ["probing"]
    assert result.suites["core"] is next(iter(kept.values()))
    with torch.no_grad():
        changed = type(sae)(32, 48, sae.options)
        changed.load_state_dict(sae.state_dict())
        changed.W_dec.mul_(1.5)
    seen: list[str] = []
    run(changed, tiny_llama, tokens, ("core",), stored=lambda suite, key: kept.get((suite, key)),
        keep=lambda record: seen.append(record.result.suite))  # fmt: skip
    assert seen == ["core"]


def test_documents_have_saebenchs_names(sae, tiny_llama: LanguageModel, tokens, concept) -> None:  # type: ignore[no-untyped-def]
    result = run(sae, tiny_llama, tokens, concepts=[concept])
    made = saebench_documents(result, "demo", {"architecture": "topk"})
    assert set(made) == {"core", "sparse_probing"}
    core = made["core"]
    assert {"eval_type_id", "eval_config", "eval_id", "datetime_epoch_millis", "eval_result_metrics", "eval_result_details",
            "sae_bench_commit_hash", "sae_lens_id", "sae_lens_release_id", "sae_lens_version", "sae_cfg_dict",
            "eval_result_unstructured"} == set(core)  # fmt: skip
    assert core["eval_result_metrics"]["reconstruction_quality"]["explained_variance"] is not None
    probing = made["sparse_probing"]["eval_result_metrics"]
    assert set(probing["sae"]) == {"sae_test_accuracy", "sae_top_1_test_accuracy", "sae_top_2_test_accuracy"}
    assert made["sparse_probing"]["eval_result_details"][0]["dataset_name"] == "toy"
    assert any("explained_variance" in line for line in core["eval_result_unstructured"]["differs"])
    json.dumps(made, allow_nan=False)


def test_what_is_missing_is_said_before_anything_runs(sae, tiny_llama: LanguageModel) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=r"model, tokens, hook missing"):
        evaluate_suites(sae, ("core",), progress=SilentProgress())
    with pytest.raises(ConfigError, match="tokens, hook missing"):
        evaluate_suites(sae, ("structure",), model=tiny_llama, progress=SilentProgress())


def test_data_of_sae_probes_is_read_from_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "sae_probes" / "data" / "cleaned_data"
    folder.mkdir(parents=True)
    lines = [f'"text, number {at}",5,{at % 2}' for at in range(60)]
    lines += ['"text, number 0",5,1', '"long",900,1']  # the same prompt twice, and one that is too long
    (folder / "5_toy.csv").write_text("prompt,prompt_len,target\n" + "\n".join(lines) + "\n")
    assert list(probe_files(tmp_path)) == ["5_toy"]
    ((_, data),) = sae_probe_sets(tmp_path, ["5"], items=40, seed=0)
    assert (data.name, data.classes, len(data.items)) == ("5_toy", ("0", "1"), 40)
    assert data.counts(("label", "split")) == {
        ("0", "test"): 5,
        ("0", "train"): 15,
        ("1", "test"): 5,
        ("1", "train"): 15,
    }
    assert all(item.word == item.text[-1] for item in data.items)
    with pytest.raises(InputError, match="no data set '6'"):
        sae_probe_sets(tmp_path, ["6"], items=40, seed=0)
    with pytest.raises(InputError, match="cleaned_data"):
        probe_files(tmp_path / "sae_probes" / "nothing")
