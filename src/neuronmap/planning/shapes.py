"""The sizes of a language model that decide what running it costs: from its published description or its configuration.

Legend: D width of the residual stream, V entries of the vocabulary, T tokens of a context.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronmap.errors import ConfigError, ModelFormatError, ModelNotFoundError

__all__ = ["PUBLISHED", "ModelShape", "find_shape"]


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a transformer with equal blocks.

    Attributes:
        name: what it is called.
        num_layers: blocks.
        width: D.
        attention_weights: weights of the linear layers of a block's attention.
        mlp_weights: those of its MLP (of all experts, where there are several).
        attention_width: heads times their width: how wide queries are.
        mlp_width: width inside the MLP.
        vocabulary: V.
        embedding_weights: entries of the embedding, positions and unembedding.
        source: where the sizes are from.
    """

    name: str
    num_layers: int
    width: int
    attention_weights: int
    mlp_weights: int
    attention_width: int
    mlp_width: int
    vocabulary: int
    embedding_weights: int
    source: str

    @property
    def parameters(self) -> int:
        """Weights of all blocks and embeddings; norms and biases, far below 1 %, are left out."""
        return self.num_layers * (self.attention_weights + self.mlp_weights) + self.embedding_weights

    def hook_width(self, component: str) -> int:
        """Width of an activation.

        Raises:
            ConfigError: for a component whose width is not known from sizes alone.
        """
        widths = {"mlp_hidden": self.mlp_width, "attention_heads": self.attention_width}
        if component not in _COMPONENTS:
            raise ConfigError(f"component = {component!r}: a plan knows {', '.join(_COMPONENTS)}.")
        return widths.get(component, self.width)

    def flops_per_token(self, layer: int, component: str, context_length: int) -> float:
        """Multiplications and additions to reach a hook: two a weight, and scores and sums of causal attention.

        Attention reads T / 2 earlier tokens on average, twice (scores, weighted sum): 2 T times the width of the queries.

        Raises:
            ConfigError: if there is no such block or component.
        """
        if not 0 <= layer < self.num_layers:
            raise ConfigError(f"layer = {layer}: {self.name} has blocks 0 to {self.num_layers - 1}.")
        self.hook_width(component)
        attention = 2.0 * self.attention_weights + 2.0 * context_length * self.attention_width
        mlp = 2.0 * self.mlp_weights
        last = {"residual_pre": 0.0, "attention": attention, "attention_heads": attention}
        return layer * (attention + mlp) + last.get(component, attention + mlp)


_COMPONENTS = ("residual", "residual_pre", "mlp", "mlp_hidden", "attention", "attention_heads")


def _published(
    name: str, layers: int, width: int, heads: tuple[int, int, int], mlp: tuple[int, int], vocabulary: int,
    embeddings: int, source: str,
) -> ModelShape:  # fmt: skip
    """A shape from the numbers of a paper's table: heads (queries, keys, width of one), MLP (width, matrices)."""
    queries, keys, head = heads
    return ModelShape(
        name=name,
        num_layers=layers,
        width=width,
        attention_weights=2 * width * head * (queries + keys),
        mlp_weights=mlp[1] * width * mlp[0],
        attention_width=queries * head,
        mlp_width=mlp[0],
        vocabulary=vocabulary,
        embedding_weights=embeddings,
        source=source,
    )


PUBLISHED = {
    made.name: made
    for made in (
        _published(
            "smollm2-135m", 30, 576, (9, 3, 64), (1536, 3), 49_152, 49_152 * 576, "arXiv 2502.02737 and its config.json"
        ),
        _published(
            "gpt2",
            12,
            768,
            (12, 12, 64),
            (3072, 2),
            50_257,
            (50_257 + 1024) * 768,
            "Radford et al. 2019 and its config.json",
        ),
        _published(
            "gemma-2-2b", 26, 2304, (8, 4, 256), (9216, 3), 256_000, 256_000 * 2304, "arXiv 2408.00118, table 1"
        ),
        _published(
            "llama-3-70b", 80, 8192, (64, 8, 128), (28_672, 3), 128_256, 2 * 128_256 * 8192, "arXiv 2407.21783, table 3"
        ),
    )
}
"""Models whose sizes are known without any file, by name."""

_OTHER_NAMES = {
    "openai-community/gpt2": "gpt2",
    "google/gemma-2-2b": "gemma-2-2b",
    "google/gemma-2-2b-it": "gemma-2-2b",
    "meta-llama/meta-llama-3-70b": "llama-3-70b",
    "meta-llama/llama-3.1-70b": "llama-3-70b",
    "meta-llama/llama-3.3-70b-instruct": "llama-3-70b",
    "70b": "llama-3-70b",
    "huggingfacetb/smollm2-135m": "smollm2-135m",
    "huggingfacetb/smollm2-135m-instruct": "smollm2-135m",
}


def find_shape(model: str) -> ModelShape:
    """The sizes of a model.

    Args:
        model: a known name (``gpt2``, ``gemma-2-2b``, ``llama-3-70b``, ``smollm2-135m``), a folder with a ``config.json`` (no weights
            are needed), or a hub id whose configuration is in the cache or can be asked for.

    Raises:
        ModelNotFoundError: no such model; lists the known names.
        ModelFormatError: the configuration is there but cannot be used.
    """
    known = _OTHER_NAMES.get(model.lower(), model.lower())
    if known in PUBLISHED:
        return PUBLISHED[known]
    folder = Path(model).expanduser()
    if not folder.exists() and "/" not in model:
        near = difflib.get_close_matches(known, PUBLISHED, n=1)
        raise ModelNotFoundError(
            f"There is no model {model!r}: no folder, hub id or known name ({', '.join(PUBLISHED)}).",
            hint=f"Did you mean {near[0]}?" if near else "Give a folder with its config.json; weights are not needed.",
        )
    return _from_config(_read_config(model, folder), model)


def _read_config(model: str, folder: Path) -> Any:
    from transformers import AutoConfig

    if folder.exists() and not (folder / "config.json").is_file():
        raise ModelFormatError(f"{model} has no config.json.", hint="Give the folder of a Hugging Face model.")
    try:
        return AutoConfig.from_pretrained(folder if folder.exists() else model, trust_remote_code=False)
    except (ValueError, KeyError, json.JSONDecodeError) as error:
        raise ModelFormatError(f"The configuration of {model} cannot be used: {_first_line(error)}") from error
    except OSError as error:
        raise ModelNotFoundError(
            f"The configuration of {model!r} is not on this machine and cannot be fetched: {_first_line(error)}",
            hint=f"Known without any file: {', '.join(PUBLISHED)}.",
        ) from error


def _from_config(config: Any, name: str) -> ModelShape:
    """Count the weights of the model built without data (on the ``meta`` device), so any architecture is counted as it is."""
    import torch
    from torch import nn
    from transformers import AutoModel

    text = config.get_text_config()
    try:
        with torch.device("meta"):
            module = AutoModel.from_config(text, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFormatError(
            f"A model cannot be built from the configuration of {name}: {_first_line(error)}"
        ) from error
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    blocks = max(lists, key=lambda part: sum(weight.numel() for weight in part.parameters()), default=None)
    if blocks is None or not len(blocks):
        raise ModelFormatError(f"{name} ({type(module).__name__}) has no list of blocks, so its cost cannot be told.")
    matrices = {key: weight.numel() for key, weight in blocks[0].named_parameters() if weight.ndim > 1}
    attention = sum(count for key, count in matrices.items() if "attn" in key.lower() or "attention" in key.lower())
    heads = int(getattr(text, "num_attention_heads", 1))
    head = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    embedding = sum(weight.numel() for weight in module.parameters()) - sum(
        weight.numel() for weight in blocks.parameters()
    )
    if not getattr(text, "tie_word_embeddings", True):
        embedding += text.vocab_size * text.hidden_size
    return ModelShape(
        name=Path(name).name if Path(name).exists() else name,
        num_layers=len(blocks),
        width=int(text.hidden_size),
        attention_weights=attention,
        mlp_weights=sum(matrices.values()) - attention,
        attention_width=heads * head,
        mlp_width=int(
            getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * text.hidden_size
        ),
        vocabulary=int(text.vocab_size),
        embedding_weights=embedding,
        source=f"config.json ({type(module).__name__})",
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
