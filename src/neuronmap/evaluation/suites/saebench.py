"""Suite records as SAEBench's result files: its field names, so that its plots and tables read ours beside its own.

What is SAEBench's: names, categories, one file an evaluation (``core``, ``sparse_probing``, ``absorption_first_letter``). What is ours:
every number. ``eval_result_unstructured.neuronmap`` holds the whole record with its intervals and baselines; ``differs`` says which
numbers are defined otherwise than there. What we do not measure is null where its classes allow that, and else -1, as it writes itself.
Absorption that the model cannot show has no document: its form has no way to say so.

Names as in SAEBench 0.6 (evals/*/eval_output.py). No torch here.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from neuronmap.evaluation.metrics import CoreMetrics, Estimate
from neuronmap.evaluation.suites.record import AbsorptionSuite, CoreSuite, ProbingSuite, SuiteRecord, SuiteResult

__all__ = ["DIFFERS", "FORMS", "saebench_documents"]

FORMS = {"core": "core", "probing": "sparse_probing", "absorption": "absorption_first_letter"}
"""SAEBench's name for what a suite measures; it has none for the others."""

UNMEASURED = -1
"""What SAEBench writes where it measured nothing."""

DIFFERS: dict[str, tuple[str, ...]] = {
    "core": (
        "explained_variance is 1 - E|x - xhat|^2 / (E|x|^2 - |E x|^2) over all dimensions; SAEBench 0.6 divides by another quantity",
        "mse is summed over dimensions and averaged over tokens; SAEBench's also divides by the tokens of a batch",
        "*_with_ablation are of zero ablation at scored positions only; mean ablation is under neuronmap",
        "l1 weights each activation by its decoder norm and takes its size; SAEBench sums signed activations",
        "the first position of a context is not scored",
    ),
    "sparse_probing": (
        "data sets are NeuronMap's minimal pairs (or sae-probes'), read at one token; SAEBench pools over its own texts",
        "train and test items share no lemma",
        "llm_top_k_* are the k best raw coordinates, by the same rule as latents",
    ),
    "absorption_first_letter": (
        "latents are ranked by mean difference, not by an L1 probe",
        "the decoder's bias is taken off before projecting on the probe",
        "three fixed examples stand before each word",
        "only letters whose dense probe reaches an F1 of 0.6 are averaged",
        "num_split_features counts all main latents",
    ),
}


def saebench_documents(
    result: SuiteResult, sae: str, sae_config: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """The documents, by ``eval_type_id``; suites that SAEBench has no form for (structure, stability) give none.

    Args:
        result: records.
        sae: name of the SAE.
        sae_config: its ``cfg.json``.
    """
    found = {}
    for record in result.suites.values():
        made = _parts(record)
        if made is not None:
            kind, config, metrics, details = made
            found[kind] = _document(record, kind, config, metrics, details, sae, sae_config)
    return found


Parts = tuple[str, dict[str, Any], dict[str, Any], list[dict[str, Any]]]


def _parts(record: SuiteRecord) -> Parts | None:
    if isinstance(record.result, CoreSuite):
        return FORMS["core"], *_core(record.result.sae, record)
    if isinstance(record.result, ProbingSuite):
        return FORMS["probing"], *_probing(record.result, record)
    if isinstance(record.result, AbsorptionSuite) and "sae" in record.result.dictionaries:
        return FORMS["absorption"], *_absorption(record.result, record)
    return None


def _document(
    record: SuiteRecord,
    kind: str,
    config: dict[str, Any],
    metrics: dict[str, Any],
    details: list[dict[str, Any]],
    sae: str,
    sae_config: Mapping[str, Any] | None,
) -> dict[str, Any]:
    digits = record.key.removeprefix("sha256:")
    ours = version_of(record)
    return {
        "eval_type_id": kind,
        "eval_config": config,
        "eval_id": str(uuid.UUID(digits[:32])),
        "datetime_epoch_millis": int(datetime.fromisoformat(record.created).timestamp() * 1000),
        "eval_result_metrics": metrics,
        "eval_result_details": details,
        "sae_bench_commit_hash": f"not run by SAEBench: neuronmap {ours}",
        "sae_lens_id": sae,
        "sae_lens_release_id": "neuronmap",
        "sae_lens_version": None,
        "sae_cfg_dict": dict(sae_config) if sae_config is not None else None,
        "eval_result_unstructured": {"neuronmap": record.to_dict(), "differs": list(DIFFERS[kind])},
    }


def version_of(record: SuiteRecord) -> str:
    """The version of NeuronMap that measured it."""
    return record.protocol.versions.get("neuronmap", "?")


def _value(estimate: Estimate | None) -> float | None:
    return estimate.value if estimate is not None else None


def _number(value: Estimate | float | None) -> float:
    """For a field that must hold a number."""
    found = _value(value) if isinstance(value, Estimate) else value
    return found if found is not None else UNMEASURED


def _core(core: CoreMetrics, record: SuiteRecord) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    behaviour, made, sparsity = core.behaviour, core.reconstruction, core.sparsity
    score, loss = {}, {}
    for name in ("kl_score_zero", "kl_zero", "kl_sae"):
        score[name] = _number(getattr(behaviour, name) if behaviour else None)
    for name in ("ce_score_zero", "ce_zero", "ce_sae", "ce_clean"):
        loss[name] = _number(getattr(behaviour, name) if behaviour else None)
    metrics = {
        "model_behavior_preservation": {
            "kl_div_score": score["kl_score_zero"],
            "kl_div_with_ablation": score["kl_zero"],
            "kl_div_with_sae": score["kl_sae"],
        },
        "model_performance_preservation": {
            "ce_loss_score": loss["ce_score_zero"],
            "ce_loss_with_ablation": loss["ce_zero"],
            "ce_loss_with_sae": loss["ce_sae"],
            "ce_loss_without_sae": loss["ce_clean"],
        },
        "reconstruction_quality": {
            "explained_variance": _number(made.explained_variance),
            "explained_variance_legacy": UNMEASURED,
            "mse": _number(made.mse),
            "cossim": _number(made.cosine),
        },
        "shrinkage": {
            "l2_norm_in": UNMEASURED,
            "l2_norm_out": UNMEASURED,
            "l2_ratio": _number(made.norm_ratio),
            "relative_reconstruction_bias": _number(made.bias),
        },
        "sparsity": {"l0": _number(sparsity.l0), "l1": _number(sparsity.l1)},
        "token_stats": {
            "total_tokens_eval_reconstruction": core.protocol.behaviour_tokens,
            "total_tokens_eval_sparsity_variance": core.protocol.tokens,
        },
        "misc_metrics": {
            "freq_over_1_percent": _number(sparsity.fraction_above_1_percent),
            "freq_over_10_percent": _number(sparsity.fraction_above_10_percent),
            "normalized_freq_over_1_percent": UNMEASURED,
            "normalized_freq_over_10_percent": _number(sparsity.firings_above_10_percent),
            "average_max_encoder_cosine_sim": UNMEASURED,
            "average_max_decoder_cosine_sim": UNMEASURED,
            "frac_alive": _number(sparsity.fraction_alive),
        },
    }
    config = {
        "model_name": record.protocol.model,
        "context_size": core.protocol.context_length,
        "dataset": core.protocol.source_digest,
        "compute_kl": behaviour is not None,
        "compute_ce_loss": behaviour is not None,
        "compute_l2_norms": False,
        "compute_sparsity_metrics": True,
        "compute_variance_metrics": True,
        "compute_featurewise_density_statistics": False,
        "compute_featurewise_weight_based_metrics": False,
        "exclude_special_tokens_from_reconstruction": True,
        "llm_dtype": core.protocol.model_dtype,
    }
    return config, metrics, []


def _probing(result: ProbingSuite, record: SuiteRecord) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    sources = {"llm": "identity", "sae": "sae"}
    details: list[dict[str, Any]] = []
    for one in result.sets:
        row: dict[str, Any] = {"dataset_name": one.name, "llm_test_accuracy": _value(one.scores["dense"][0].accuracy)}
        for prefix, dictionary in sources.items():
            for score in one.scores.get(dictionary, ()):
                row[f"{prefix}_top_{score.k}_test_accuracy"] = _value(score.accuracy)
        details.append(row | {"sae_test_accuracy": None})
    metrics: dict[str, dict[str, Any]] = {
        "llm": {"llm_test_accuracy": _value(result.means["dense"][0].accuracy)},
        "sae": {"sae_test_accuracy": None},
    }
    for prefix, dictionary in sources.items():
        for mean in result.means.get(dictionary, ()):
            metrics[prefix][f"{prefix}_top_{mean.k}_test_accuracy"] = _value(mean.accuracy)
    config = {
        "model_name": record.protocol.model,
        "random_seed": record.protocol.seed,
        "dataset_names": [one.name for one in result.sets],
        "probe_train_set_size": max(one.train for one in result.sets),
        "probe_test_set_size": max(one.test for one in result.sets),
        "k_values": list(result.ks),
    }
    return config, metrics, details


def _absorption(
    result: AbsorptionSuite, record: SuiteRecord
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    own = result.dictionaries["sae"]
    letters = own.letters
    fractions = [one.absorption_fraction for one in letters]
    full = [one.full_absorption / one.probe_true_positives for one in letters]
    counts = [float(len(one.main_latents)) for one in letters]

    def spread(values: list[float]) -> float:
        return float(np.std(values, ddof=1)) if len(values) > 1 else UNMEASURED

    metrics = {
        "mean": {
            "mean_absorption_fraction_score": _number(own.mean_absorption_fraction),
            "mean_full_absorption_score": _number(own.mean_full_absorption),
            "mean_num_split_features": own.mean_main_latents,
            "std_dev_absorption_fraction_score": spread(fractions),
            "std_dev_full_absorption_score": spread(full),
            "std_dev_num_split_features": spread(counts),
        }
    }
    details = [
        {
            "first_letter": one.letter,
            "mean_absorption_fraction": one.absorption_fraction,
            "full_absorption_rate": share,
            "num_full_absorption": one.full_absorption,
            "num_probe_true_positives": one.probe_true_positives,
            "num_split_features": len(one.main_latents),
        }
        for one, share in zip(letters, full, strict=True)
    ]
    config = {
        "model_name": record.protocol.model,
        "random_seed": record.protocol.seed,
        "f1_jump_threshold": 0.03,
        "max_k_value": 10,
        "prompt_template": "{word} has the first letter:",
    }
    return config, metrics, details
