"""Suites on a small language model: one pass for all, records that are kept and found again, interruption, SAEBench's form."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
import torch
from rich.console import Console

from neuronmap.cli.evaluate import suite_table
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


class Uneven(torch.nn.Module):
    """A code with one active entry on rows of one side, and eight on those of the other."""

    architecture, d_in, d_sae = "uneven", 32, 48

    def __init__(self, direction_D: torch.Tensor, middle: float) -> None:
        super().__init__()
        self.W_dec = torch.nn.Parameter(torch.eye(48, 32) + 0.01)
        self.direction_D, self.middle = direction_D, middle

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        code = torch.zeros(*x.shape[:-1], 48)
        code[..., 0] = 1.0
        code[..., 1:8] = (x @ self.direction_D > self.middle).float()[..., None]
        return code

    def decode(self, f: torch.Tensor) -> torch.Tensor:
        return f @ self.W_dec


def test_baselines_keep_as_many_entries_as_the_sae_where_it_is_measured(
    tiny_llama: LanguageModel, tokens, concept
) -> None:  # type: ignore[no-untyped-def]
    uneven = Uneven(torch.randn(32, generator=torch.Generator().manual_seed(1)), 0.0)
    result = run(uneven, tiny_llama, tokens, concepts=[concept])
    for record in result.suites.values():
        l0 = record.protocol.l0_measured
        assert l0 is not None
        assert l0 != record.protocol.l0
        assert record.baselines["neurons"].k == record.baselines["random"].k == max(1, round(l0))
    core = result.suites["core"].result
    assert isinstance(core, CoreSuite)
    assert core.sae.sparsity.l0.value == pytest.approx(result.suites["core"].protocol.l0_measured)


def test_the_lead_over_each_baseline_is_in_the_table(sae, tiny_llama: LanguageModel, tokens, concept) -> None:  # type: ignore[no-untyped-def]
    other = concept_from_texts(
        "other",
        positive=[f"The {number} is strong" for number in range(12)],
        negative=[f"The {number} was lazy" for number in range(12)],
    )
    result = run(sae, tiny_llama, tokens, ("probing",), concepts=[concept, other])
    rows = {row.figure: row for row in result.rows()}
    for k in (1, 2):
        auc, lead = rows[f"auc_k{k}"].values, rows[f"lead_k{k}"]
        assert lead.difference
        assert set(lead.values) == {"identity", "pca", "random", "neurons"} | ({"dense"} if k == 2 else set())
        for name, value in lead.values.items():
            assert value.value == pytest.approx(auc["sae"].value - auc[name].value)
            assert value.low <= value.value <= value.high
    assert not any("lead" in name for name in result.summary()), "each SAE's baselines are its own"
    shown = Console(width=250)
    with shown.capture() as caught:
        for part in suite_table(result):
            shown.print(part)
    assert "lead_k1" in caught.get()
    assert "lead: AUC of the SAE minus that of the column" in " ".join(caught.get().split())
    assert "probing: the SAE's L0 is 4 on the rows measured here" in " ".join(caught.get().split())


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


def test_a_result_on_other_rows_is_another_record(sae, tiny_llama: LanguageModel, tokens, concept) -> None:  # type: ignore[no-untyped-def]
    """The norm above which a row is dropped, as it was asked for: given, another, or found from the text, which only the run learns."""
    kept: dict[tuple[str, str], SuiteRecord] = {}

    def measure(threshold: float | None) -> list[SuiteRecord]:
        found = run(
            sae, tiny_llama, tokens, concepts=[concept], outlier_threshold=threshold,
            stored=lambda suite, key: kept.get((suite, key)),
        )  # fmt: skip
        return list(found.suites.values())

    norms = [measure(threshold) for threshold in (1e6, 2e6, None)]
    assert len({record.key for records in norms for record in records}) == 6
    assert [records[0].protocol.outlier_threshold for records in norms[:2]] == [1e6, 2e6]
    for record in norms[2]:
        kept[record.result.suite, record.key] = record
    again = measure(None)
    assert [a is b for a, b in zip(again, norms[2], strict=True)] == [True, True]


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


def packed(folder: Path, name: str, rows: list[tuple[str, ...]], columns: tuple[str, ...]) -> None:
    """A file as sae-probes 0.4.2 has them: every field in quotes, inner ones doubled, Zstandard."""
    quoted = [",".join('"' + field.replace('"', '""') + '"' for field in row) for row in [columns, *rows]]
    folder.mkdir(parents=True, exist_ok=True)
    with pa.output_stream(str(folder / f"{name}.csv.zst"), compression="zstd") as stream:
        stream.write(("\n".join(quoted) + "\n").encode())


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    """The package's folder with a set of each kind that it has."""
    folder, columns = tmp_path / "sae_probes" / "data" / "cleaned_data", ("prompt", "prompt_len", "target")
    rows = [(f'"text",\nnumber {at}', "5", str(at % 2)) for at in range(60)]
    rows += [('"text",\nnumber 0', "5", "1"), ("long", "900", "1")]  # the same prompt twice, and one that is too long
    packed(folder, "5_hist_fig_ismale", rows, columns)
    packed(folder, "22_headline_isobama", [(row[0], row[1], str(row[2] == "1")) for row in rows], columns)
    packed(
        folder,
        "131_temp_cat_Typical Time",
        [(row[0], row[1], "time" if row[2] == "1" else "other") for row in rows],
        columns,
    )
    packed(folder, "158_code_C", [(row[0], row[2]) for row in rows[:-1]] + [("x" * 4000, "1")], ("prompt", "target"))
    packed(folder, "43_temp_cat", [(*row[:2], str(at % 3)) for at, row in enumerate(rows)], columns)
    packed(folder, "142_cancer_cat_Thyroid_Cancer", [(row[0], "400", row[2]) for row in rows], columns)
    packed(tmp_path / "sae_probes" / "data", "probing_datasets_MASTER", [("x", "y")], ("Source", "Dataset Tag"))
    return tmp_path


def test_data_of_sae_probes_is_read_as_its_package_has_it(probes: Path) -> None:
    assert list(probe_files(probes)) == [
        "5_hist_fig_ismale", "22_headline_isobama", "43_temp_cat", "131_temp_cat_Typical Time",
        "142_cancer_cat_Thyroid_Cancer", "158_code_C",
    ]  # fmt: skip
    (((source, data),), skipped) = sae_probe_sets(probes, ["5"], items=40, seed=0)
    assert (source, data.name, data.classes, len(data.items), skipped) == (
        "sae-probes",
        "5_hist_fig_ismale",
        ("0", "1"),
        40,
        {},
    )
    assert data.counts(("label", "split")) == {
        ("0", "test"): 5,
        ("0", "train"): 15,
        ("1", "test"): 5,
        ("1", "train"): 15,
    }
    assert all(item.word == item.text[-1] for item in data.items)
    assert all(item.text.startswith('"text",\nnumber ') for item in data.items), "quotes and line breaks are kept"
    every, skipped = sae_probe_sets(probes, ["all"], items=200, seed=0)
    assert [data.classes for _, data in every] == [("0", "1"), ("False", "True"), ("other", "time"), ("0", "1")]
    assert [len(data.items) for _, data in every] == [60] * 4, "one long prompt is left out, with or without its length"
    assert skipped["43_temp_cat"].startswith("has 3 classes")
    assert "up to 128 tokens" in skipped["142_cancer_cat_Thyroid_Cancer"]


def test_what_of_sae_probes_cannot_be_probed_for_is_refused(probes: Path) -> None:
    with pytest.raises(InputError, match="no data set '6'"):
        sae_probe_sets(probes, ["6"], items=40, seed=0)
    with pytest.raises(InputError, match="43_temp_cat has 3 classes"):
        sae_probe_sets(probes, ["43"], items=40, seed=0)
    with pytest.raises(InputError, match="cleaned_data"):
        probe_files(probes / "sae_probes" / "nothing")


def test_a_set_of_sae_probes_is_probed_beside_the_concepts(
    sae, tiny_llama: LanguageModel, tokens, concept, probes: Path
) -> None:  # type: ignore[no-untyped-def]
    found: dict[str, str] = {}
    for _ in range(2):
        settings = dataclasses.replace(SMALL, probe_data=probes, probe_sets=("5", "43_temp_cat"))
        with pytest.raises(InputError, match="43_temp_cat"):
            evaluate_suites(
                sae, ("probing",), model=tiny_llama, tokens=tokens, hook=HOOK, concepts=[concept], settings=settings,
                progress=SilentProgress(),
            )  # fmt: skip
        result = evaluate_suites(
            sae, ("probing",), model=tiny_llama, tokens=tokens, hook=HOOK, concepts=[concept],
            settings=dataclasses.replace(settings, probe_sets=("5",)), progress=SilentProgress(),
        )  # fmt: skip
        suite = result.suites["probing"].result
        assert isinstance(suite, ProbingSuite)
        assert [(one.name, one.source) for one in suite.sets] == [
            ("toy", "concepts"),
            ("5_hist_fig_ismale", "sae-probes"),
        ]
        found[result.suites["probing"].key] = suite.sets[1].items_digest
        rows = [(f"another text, number {at}", "5", str(at % 2)) for at in range(60)]
        packed(probes / "sae_probes/data/cleaned_data", "5_hist_fig_ismale", rows, ("prompt", "prompt_len", "target"))
    assert len(found) == len(set(found.values())) == 2, "another file is another measurement"
