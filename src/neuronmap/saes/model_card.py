"""The README of a bundle: a Hugging Face model card that a person can read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from neuronmap.saes.metadata import BundleMetadata, summary_numbers
from neuronmap.saes.saelens_format import SAELENS_ARCHITECTURES

__all__ = ["model_card", "with_metrics"]

_BEGIN, _END = "<!-- metrics: written by NeuronMap from metrics.json -->", "<!-- end of metrics -->"
_SECTION = re.compile(re.escape(_BEGIN) + ".*?" + re.escape(_END), re.DOTALL)


def model_card(
    d_in: int, d_sae: int, config: Mapping[str, Any], metadata: BundleMetadata, metrics: dict[str, Any] | None
) -> str:
    """The whole card.

    Args:
        d_in: width of the activation.
        d_sae: number of features.
        config: ``cfg.json``.
        metadata: our block, complete.
        metrics: the content of ``metrics.json``, or None.
    """
    model, hook, corpus = metadata.model or {}, metadata.hook or {}, metadata.corpus or {}
    form, ours_only = config["architecture"], config["architecture"] not in SAELENS_ARCHITECTURES
    front = {
        "library_name": "neuronmap" if ours_only else "saelens",
        "tags": ["sparse-autoencoder", "neuronmap", str(metadata.architecture)],
    }
    rows = [
        (
            "Architecture",
            f"{metadata.architecture}, {'of which SAELens has no form' if ours_only else f'stored as SAELens `{form}`'}",
        ),
        ("Features", f"{d_sae:,} over activations of width {d_in:,}{_more_widths(config)}"),
        ("Options", ", ".join(f"{name} = {value}" for name, value in metadata.options.items())),
        ("Model", _join(model.get("name"), model.get("revision"), model.get("architecture"))),
        ("Hook", _join(hook.get("name"), _place(hook))),
        ("Reconstructs", _join((metadata.hook_out or {}).get("name"), _place(metadata.hook_out or {}))),
        ("Hooks", "; ".join(_join(each.get("name"), _place(each)) for each in metadata.hooks or ())),
        ("Input", _NORMS.get(str(config.get("normalize_activations")))),
        ("Text", _join(corpus.get("name"), corpus.get("digest"))),
        ("Training", _training(metadata)),
        ("Made", _join(metadata.created, f"NeuronMap {metadata.neuronmap_version}")),
        ("Weights", metadata.weights_digest),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows if value)
    kind = str(metadata.architecture)
    title = kind.capitalize() if kind in _NOT_AUTOENCODERS else f"{kind} sparse autoencoder"
    title += f" for {model['name']}" if model.get("name") else ""
    notes = f"\n{metadata.notes}\n" if metadata.notes else ""
    return (
        f"---\n{_yaml(front)}---\n\n# {title}\n{notes}\n| | |\n| --- | --- |\n{table}\n\n"
        f"{_metrics_section(metrics)}\n\n{_how_to_load(kind, config, ours_only)}"
    )


def with_metrics(card: str, metrics: dict[str, Any]) -> str:
    """The card with its metrics table replaced, all else as it was."""
    return _SECTION.sub(lambda _: _metrics_section(metrics), card)


_NOT_AUTOENCODERS = ("transcoder", "crosscoder")
_SHAPES = {"crosscoder": "[..., hooks, d_in]", "temporal": "[contexts, tokens, d_in]"}
_OUTPUTS = {"crosscoder": "[..., hooks, d_in]", "transcoder": "[..., d_out], the other hook"}
_NORMS = {
    "layer_norm": "each row minus its mean, over its standard deviation (at run time)",
    "constant_norm_rescale": "each row scaled to the norm sqrt(d_in) (at run time)",
}


def _how_to_load(architecture: str, config: Mapping[str, Any], ours_only: bool) -> str:
    """The section with code to copy."""
    given = _SHAPES.get(architecture, "[..., d_in]")
    folded = "norms and thresholds are folded into the weights"
    if config.get("normalize_activations") in _NORMS:
        folded += "; each row is normalised by encode, and reconstruct undoes it (decode alone cannot)"
    else:
        folded = f"scale, {folded}"
    text = f"""## Load it

The input is the raw activation at the hook: {folded}.

In NeuronMap:

```python
from neuronmap import SparseAutoencoder

sae = SparseAutoencoder.load("path/to/this/folder")
features = sae.encode(activations)   # {given} -> [..., d_sae]
output = sae.reconstruct(activations)   # {_OUTPUTS.get(architecture, given)}
```
"""
    if ours_only:
        return text + "\nSAELens does not open this folder: it has no such architecture.\n"
    return (
        text
        + """
In SAELens:

```python
from sae_lens import SAE

sae = SAE.load_from_disk("path/to/this/folder")
```
"""
    )


def _more_widths(config: Mapping[str, Any]) -> str:
    """The widths that only some have."""
    if "d_out" in config:
        return f", for activations of width {config['d_out']:,}"
    return f" of {config['layers']:,} hooks" if "layers" in config else ""


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
