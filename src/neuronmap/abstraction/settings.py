"""How thoroughly the tracker measures."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field

from neuronmap.config import FrozenConfig

__all__ = ["PRESETS", "Preset", "TrackerConfig"]

Preset = Literal["quick", "full"]


class TrackerConfig(FrozenConfig):
    """Settings of one run. The presets are ``quick`` and ``full``; each field can be changed."""

    items: int = Field(default=480, ge=16)
    """Items of each built-in concept; more give more sentences to each lemma."""
    layer_stride: int = Field(default=1, ge=1)
    """Measure every so many layers; the embedding and the last layer always."""
    permutations: int = Field(default=1000, ge=20)
    """Relabelings for the null."""
    resamples: int = Field(default=1000, ge=20)
    """Draws of clusters for intervals and bands."""
    random_concepts: int = Field(default=100, ge=20)
    """Random splits of the same texts."""
    control_labelings: int = Field(default=20, ge=0)
    """Random labelings of the control task; 0 leaves it out."""
    mlp: bool = True
    """Train a small MLP on each layer, to see what is not along a direction."""
    untrained: bool = True
    """Also read the same architecture with random weights, on half as many items."""
    complexity: bool = True
    """Work out the components of the complexity ranking."""
    context_need: bool = True
    """Read items with shortened context at the best layer; part of the complexity."""
    similarity: bool = True
    """Compare the layers with each other."""
    similarity_rows: int = Field(default=768, ge=64)
    """Tokens for that, one a context."""
    causal: bool = False
    """Change the concept at some layers and measure the behaviour; slow."""
    causal_layers: int = Field(default=8, ge=2)
    """Layers that are changed, evenly spaced."""
    causal_directions: int = Field(default=20, ge=5)
    """Random directions for comparison."""
    lens: bool = True
    """Show the logit lens beside a prompt's trajectory."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything drawn."""

    @classmethod
    def preset(cls, name: Preset, /, **changes: Any) -> Self:
        """The settings of a preset, with some of them changed."""
        return cls(**{**PRESETS[name], **changes})


PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "items": 240,
        "layer_stride": 2,
        "permutations": 200,
        "resamples": 300,
        "random_concepts": 50,
        "mlp": False,
        "untrained": False,
        "context_need": False,
        "similarity_rows": 256,
    },
    "full": {},
}
"""What differs from the defaults."""
