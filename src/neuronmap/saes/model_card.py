"""The README of a bundle: a Hugging Face model card that a person can read."""

from __future__ import annotations

import json
import re
from typing import Any

from neuronmap.saes.metadata import BundleMetadata, summary_numbers

__all__ = ["model_card", "with_metrics"]

_BEGIN, _END = "<!-- metrics: written by NeuronMap from metrics.json -->", "<!-- end of metrics -->"
_SECTION = re.compile(re.escape(_BEGIN) + ".*?" + re.escape(_END), re.DOTALL)


def model_card(
    d_in: int, d_sae: int, saelens_architecture: str, metadata: BundleMetadata, metrics: dict[str, Any] | None
) -> str:
    """The whole card.

    Args:
        d_in: width of the activation.
        d_sae: number of features.
        saelens_architecture: what ``cfg.json`` names.
        metadata: our block, complete.
        metrics: the content of ``metrics.json``, or None.
    """
    model, hook, corpus = metadata.model or {}, metadata.hook or {}, metadata.corpus or {}
    front = {
        "library_name": "saelens",
        "tags": ["sparse-autoencoder", "neuronmap", str(metadata.architecture)],
    }
    rows = [
        ("Architecture", f"{metadata.architecture}, stored as SAELens `{saelens_architecture}`"),
        ("Features", f"{d_sae:,} over activations of width {d_in:,}"),
        ("Options", ", ".join(f"{name} = {value}" for name, value in metadata.options.items())),
        ("Model", _join(model.get("name"), model.get("revision"), model.get("architecture"))),
        ("Hook", _join(hook.get("name"), _place(hook))),
        ("Text", _join(corpus.get("name"), corpus.get("digest"))),
        ("Training", _training(metadata)),
        ("Made", _join(metadata.created, f"NeuronMap {metadata.neuronmap_version}")),
        ("Weights", metadata.weights_digest),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows if value)
    title = f"{metadata.architecture} sparse autoencoder" + (f" for {model['name']}" if model.get("name") else "")
    notes = f"\n{metadata.notes}\n" if metadata.notes else ""
    return (
        f"---\n{_yaml(front)}---\n\n# {title}\n{notes}\n| | |\n| --- | --- |\n{table}\n\n"
        f"{_metrics_section(metrics)}\n\n{_HOW_TO_LOAD}"
    )


def with_metrics(card: str, metrics: dict[str, Any]) -> str:
    """The card with its metrics table replaced, all else as it was."""
    return _SECTION.sub(lambda _: _metrics_section(metrics), card)


_HOW_TO_LOAD = """## Load it

The input is the raw activation at the hook: scale, norms and thresholds are folded into the weights.

In NeuronMap:

```python
from neuronmap import SparseAutoencoder

sae = SparseAutoencoder.load("path/to/this/folder")
features = sae.encode(activations)   # [..., d_in] -> [..., d_sae]
```

In SAELens:

```python
from sae_lens import SAE

sae = SAE.load_from_disk("path/to/this/folder")
```
"""


def _metrics_section(metrics: dict[str, Any] | None) -> str:
    numbers = summary_numbers(metrics or {})
    if not numbers:
        return f"{_BEGIN}\n{_END}"
    lines = "\n".join(f"| {name} | {value:,.6g} |" for name, value in numbers.items())
    return f"{_BEGIN}\n## Metrics\n\n| metric | value |\n| --- | --- |\n{lines}\n{_END}"


def _yaml(front: dict[str, Any]) -> str:
    lines = []
    for name, value in front.items():
        if isinstance(value, list):
            lines.append(f"{name}:")
            lines += [f"- {json.dumps(item)}" for item in value]  # a JSON string is a YAML string
        else:
            lines.append(f"{name}: {value}")
    return "\n".join(lines) + "\n"


def _join(*parts: object) -> str:
    return ", ".join(str(part) for part in parts if part)


def _place(hook: dict[str, Any]) -> str:
    if hook.get("layer") is None:
        return ""
    return f"layer {hook['layer']}" + (f", {hook['component']}" if hook.get("component") else "")


def _training(metadata: BundleMetadata) -> str:
    parts = []
    if metadata.tokens_seen is not None:
        parts.append(f"{metadata.tokens_seen:,} activations seen")
    if metadata.steps is not None:
        parts.append(f"{metadata.steps:,} steps")
    if metadata.seed is not None:
        parts.append(f"seed {metadata.seed}")
    return ", ".join(parts)
