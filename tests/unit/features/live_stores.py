"""A small feature store of a random SAE on the tiny Llama, made by plain dense computation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_stores import CONFIG, table, write_store

from neuronmap.features.storage.text import Vocabulary
from neuronmap.models import LanguageModel, capture, resolve_hook
from neuronmap.saes import SparseAutoencoder

CONTEXTS, CONTEXT_LENGTH = 12, 24


def contexts() -> np.ndarray[Any, Any]:
    """uint16 [C, T], tokens at random, none special."""
    return np.random.default_rng(3).integers(3, 299, (CONTEXTS, CONTEXT_LENGTH)).astype("<u2")


def codes_of(model: LanguageModel, sae: SparseAutoencoder) -> np.ndarray[Any, Any]:
    """float32 [C, T, F]; position 0 is masked."""
    hook = resolve_hook(model, 1)
    ids_CT = torch.from_numpy(contexts().astype(np.int64))
    f_CTF = sae.encode(capture(model, ids_CT, [hook])[hook.name]).numpy()
    f_CTF[:, 0] = 0
    return f_CTF


def example(f_CT: np.ndarray[Any, Any], feature: int, kind: str, rank: int, place: tuple[int, int]) -> dict[str, Any]:
    sequence, position = place
    start, stop = max(0, position - CONFIG.before), min(CONTEXT_LENGTH, position + CONFIG.after + 1)
    offsets = [at - position for at in range(start, stop) if f_CT[sequence, at] > 0]
    return {
        "feature": feature,
        "kind": kind,
        "group": 0,
        "rank": rank,
        "sequence": sequence,
        "position": position,
        "activation": float(f_CT[sequence, position]),
        "offsets": offsets,
        "activations": [float(f_CT[sequence, position + offset]) for offset in offsets],
    }


def live_store(folder: Path, model: LanguageModel, sae: SparseAutoencoder, **changes: Any) -> Path:
    """Top examples (one a context), quantile 2 and 4 of the configuration's 5 (one firing each), and silent places."""
    f_CTF = codes_of(model, sae)
    features, hints, examples = [], [], []
    for feature in range(sae.d_sae):
        f_CT = f_CTF[:, :, feature]
        firings = int((f_CT > 0).sum())
        features.append(
            {
                "feature": feature,
                "status": "alive" if firings >= 10 else "rare" if firings else "never",
                "firings": firings,
                "density": firings / (CONTEXTS * (CONTEXT_LENGTH - 1)),
                "max": float(f_CT.max()) if firings else None,
            }
        )
        hints.append({"feature": feature, "class": "none", "label": f"label {feature}", "output_label": ""})
        order = np.argsort(-f_CT.max(1), kind="stable")
        tops = [int(c) for c in order if f_CT[c].max() > 0][:4]
        examples += [example(f_CT, feature, "top", rank, (c, int(f_CT[c].argmax()))) for rank, c in enumerate(tops)]
        places = np.argwhere(f_CT > 0)
        for group, at in ((2, len(places) // 2), (4, len(places) - 1)):
            if len(places):
                row = example(f_CT, feature, "quantile", 0, tuple(places[at].tolist()))
                examples.append({**row, "group": group})
        silent = np.argwhere(f_CT[:, 1:] == 0)
        examples.append(example(f_CT, feature, "random", 0, (int(silent[0][0]), int(silent[0][1]) + 1)))
        examples.append(example(f_CT, feature, "hard", 0, (int(silent[-1][0]), int(silent[-1][1]) + 1)))
    order_of = ("top", "quantile", "bin", "random", "hard")
    examples.sort(key=lambda row: (row["feature"], order_of.index(row["kind"]), row["group"], row["rank"]))
    vocabulary = Vocabulary.from_tokenizer(model.tokenizer, 300)
    kept = np.ones((CONTEXTS, CONTEXT_LENGTH), bool)
    kept[:, 0] = False
    return write_store(
        folder,
        {
            "features": table("features", features),
            "details": table("details", [{"feature": feature} for feature in range(sae.d_sae)]),
            "examples": table("examples", examples),
            "hints": table("hints", hints),
            "vocabulary": vocabulary.to_table(np.zeros(300, np.int64)),
            "documents": table("documents", [{"document": 0, "id": "made-up", "sequence": 0, "position": 0}]),
        },
        contexts(),
        kept,
        **changes,
    )
