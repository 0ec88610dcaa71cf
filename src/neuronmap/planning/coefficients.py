"""Every number of the cost model that is not arithmetic: its value, its unit, and whether it was measured, derived, documented or assumed.

measured: by a benchmark of this repository, whose file is named with its machine. derived: follows from how something is stored or
computed. documented: published by the maker. assumed: neither; a guess from practice, to be replaced by a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["COEFFICIENTS", "Coefficient", "Kind", "value_of"]

Kind = Literal["measured", "derived", "documented", "assumed"]

_CPU = "2 cores of an AMD EPYC (AVX2), float32"
_H200 = "NVIDIA H200, bfloat16 products, d = 2304, F = 65,536, k = 64"


@dataclass(frozen=True)
class Coefficient:
    """One number of the model.

    Attributes:
        value: the number.
        unit: what it multiplies or counts.
        kind: where it is from.
        source: the file and machine, the derivation, or the reason for the guess.
    """

    value: float
    unit: str
    kind: Kind
    source: str


COEFFICIENTS: dict[str, Coefficient] = {
    # --- the language model ---
    "harvest_share_cpu": Coefficient(
        0.85,
        "of the rate of one large product",
        "measured",
        f"results/harvest-2026-11-25: 1,940 tokens/s against 2,280 of the model's matrix products alone ({_CPU})",
    ),
    "harvest_share_gpu": Coefficient(
        0.55,
        "of the rate of one large product",
        "assumed",
        "no harvest was measured on a GPU; transformers' eager forward passes usually reach 0.35 to 0.5 of the peak",
    ),
    "storing": Coefficient(
        1.007,
        "of the time of running the model",
        "measured",
        f"results/harvest-2026-11-25: cast, write, fsync, digests and statistics ({_CPU})",
    ),
    # --- a step on a GPU ---
    "product_share_gpu": Coefficient(
        0.70,
        "of the documented dense bfloat16 peak",
        "measured",
        f"results/gpu-2026-11-26: 696 of 989 TFLOP/s after many steps, 803 at best ({_H200}); taken over for other cards",
    ),
    "copy_share": Coefficient(
        0.89, "of the documented bandwidth", "measured", "results/gpu-2026-11-26: a copy moves 4.26 of 4.8 TB/s (H200)"
    ),
    "selection_topk": Coefficient(
        2.5,
        "passes over the B x F pre-activations in bfloat16",
        "measured",
        f"results/gpu-2026-11-26: 2.56 ms, B = 32,768 ({_H200})",
    ),
    "selection_batchtopk": Coefficient(
        10.0,
        "passes over the B x F pre-activations in bfloat16",
        "measured",
        f"results/gpu-2026-11-26: 10.31 ms, B = 32,768 ({_H200})",
    ),
    "entry_bytes": Coefficient(
        4.8,
        "bytes at the speed of a copy, for each of B x k x d",
        "measured",
        f"results/gpu-2026-11-26: 5.5 ms for decoding and both weight gradients, B = 32,768 ({_H200}); three bfloat16 reads, partly cached",
    ),
    "gradient_bytes": Coefficient(4.0, "bytes for each weight", "derived", "the gradient is written once in float32"),
    "update_bytes": Coefficient(
        37.0,
        "bytes at the speed of a copy, for each weight",
        "measured",
        f"results/gpu-2026-11-26: 2.59 ms; 30 are moved (weight, gradient, two moments, a bfloat16 copy), {_H200}",
    ),
    "launches_gpu": Coefficient(
        1e-3,
        "seconds a step",
        "measured",
        f"results/gpu-2026-11-26: 'other' is 0.8 ms at B = 4,096 and 1.4 at 32,768 ({_H200})",
    ),
    # --- several devices ---
    "usable_memory": Coefficient(
        0.90, "of a device's memory", "assumed", "the rest goes to the driver, the allocator's gaps and libraries"
    ),
    "link_share": Coefficient(
        0.7, "of the documented link rate", "assumed", "usual of large all-reduces; not measured"
    ),
    # --- the feature pass ---
    "analysis_pass": Coefficient(
        1.25,
        "encoder products of all rows",
        "measured",
        f"results/analysis-2026-11-25: 1.08 (F = 16,384) to 1.29 (F = 4,096), {_CPU}; taken over for GPUs",
    ),
    "analysis_weights": Coefficient(
        2.7,
        "of the time of 2 F d (V + F) operations",
        "measured",
        f"results/analysis-2026-11-25: promoted tokens and decoder neighbours, 4.7 s at F = 4,096, 21.4 s at 16,384 ({_CPU})",
    ),
    "analysis_finish": Coefficient(
        5.3e-4,
        "CPU seconds a feature",
        "measured",
        f"results/analysis-2026-11-25: 5.4 s at F = 4,096, 11.8 s at 16,384 ({_CPU})",
    ),
    "analysis_start": Coefficient(
        3.3, "CPU seconds", "measured", f"results/analysis-2026-11-25: what does not grow with F ({_CPU})"
    ),
    "analysis_state": Coefficient(
        12_945.0,
        "bytes of memory a feature",
        "measured",
        "results/analysis-2026-11-25 and -million-: the same at every F",
    ),
    "feature_bytes": Coefficient(
        3_000.0,
        "bytes on disk a feature",
        "measured",
        "results/analysis-2026-11-25: 1,945 to 2,336 for features that fire; rounded up for vocabulary and labels",
    ),
}
"""By name."""


def value_of(name: str) -> float:
    """The number of a coefficient."""
    return COEFFICIENTS[name].value
