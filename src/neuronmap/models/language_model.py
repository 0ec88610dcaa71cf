"""A language model ready to be looked into: module, tokenizer, identity, blocks."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from neuronmap.errors import ModelFormatError
from neuronmap.models.blocks import Blocks, Roles, backbone_kwargs, find_blocks, find_roles
from neuronmap.models.identity import ModelIdentity, module_digest, tokenizer_digest
from neuronmap.models.quiet import quiet_log

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["LanguageModel", "wrap_model"]

_RUNNING: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
"""One lock a module, not a LanguageModel: two may share a module, and hooks are put on modules."""

_Signature = tuple[tuple[str, type, tuple[tuple[int, ...], ...]], ...]


class LanguageModel:
    """A Hugging Face model in evaluation mode with frozen weights, and what NeuronMap knows about it.

    Made by :func:`~neuronmap.models.load_model` or :func:`wrap_model`.

    Attributes:
        module: the model, with its language-model head if it has one.
        tokenizer: its tokenizer, or None.
        backbone: the part of ``module`` without the head; capture runs only this.
        backbone_path: its path in ``module`` (empty when it is the module itself).
        blocks: the block list, found by running the model once on four tokens.
        identity: the record that SAEs and stores keep of this model.
        has_lm_head: whether :meth:`logits` works.
    """

    def __init__(
        self,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        name: str,
        model_digest: str,
        revision: str | None = None,
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        _RUNNING.setdefault(module, threading.RLock())
        self.tokenizer = tokenizer
        self.backbone: nn.Module = module.base_model
        self.backbone_path = next(path for path, child in module.named_modules() if child is self.backbone)
        self.has_lm_head = module.get_output_embeddings() is not None
        with quiet_log():
            self.blocks: Blocks = find_blocks(module, self.backbone)
        self._roles: dict[_Signature, Roles] = {}
        self.identity = ModelIdentity(
            name=name,
            revision=revision,
            architecture=type(module).__name__,
            model_digest=model_digest,
            tokenizer_digest=None if tokenizer is None else tokenizer_digest(tokenizer),
            dtype=str(self.dtype).removeprefix("torch."),
            hidden_size=self.blocks.hidden_size,
            num_layers=len(self.blocks.modules),
        )

    def __repr__(self) -> str:
        me = self.identity
        return (
            f"LanguageModel({me.name!r}, {me.architecture}, {me.num_layers} blocks, hidden size {me.hidden_size}, "
            f"{me.dtype} on {self.device})"
        )

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        dtype: torch.dtype = next(p.dtype for p in self.module.parameters() if p.is_floating_point())
        return dtype

    @property
    def device(self) -> torch.device:
        """Where the inputs go (the device of the token embedding)."""
        weight = self.module.get_input_embeddings().weight
        return torch.device(weight.device)

    @property
    def attention(self) -> str:
        """How attention is computed: ``sdpa``, ``eager``, ...; it decides the last bits of activations."""
        return str(getattr(self.module.config, "_attn_implementation", None) or "eager")

    @property
    def running(self) -> threading.RLock:
        """Held by whoever runs the model: hooks of one thread must not see the forward pass of another."""
        return _RUNNING.setdefault(self.module, threading.RLock())

    @property
    def num_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks.modules)

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self.blocks.hidden_size

    @cached_property
    def max_length(self) -> int | None:
        """Longest context the model's position encoding was made for, or None when it sets no limit."""
        config = self.module.config.get_text_config()
        length = getattr(config, "max_position_embeddings", None)
        return int(length) if isinstance(length, int) and length > 0 else None

    def roles(self, layer: int) -> Roles:
        """The components of one block (probed once for blocks that are built alike).

        Args:
            layer: index of the block, ``0 <= layer < num_layers``.
        """
        block = self.blocks.modules[layer]
        signature = tuple(
            (name, type(child), tuple(tuple(p.shape) for p in child.parameters(recurse=False)))
            for name, child in block.named_modules()
        )
        if signature not in self._roles:
            with quiet_log():
                self._roles[signature] = find_roles(self.module, self.backbone, block)
        return self._roles[signature]

    def logits(self, input_ids_BT: Tensor, attention_mask_BT: Tensor | None = None) -> Tensor:
        """Run the whole model.

        Args:
            input_ids_BT: int64 token ids [B, T], on any device.
            attention_mask_BT: 1 or True for real tokens [B, T]; None when there is no padding. Pad on the right.

        Returns:
            Logits [B, T, V] in the model's dtype, on its device, without a graph.

        Raises:
            ModelFormatError: if the model has no language-model head.
        """
        if not self.has_lm_head:
            raise ModelFormatError(
                f"{self.identity.name} ({self.identity.architecture}) has no language-model head, so it gives no logits."
            )
        inputs = {"input_ids": input_ids_BT.to(self.device)}
        if attention_mask_BT is not None:
            inputs["attention_mask"] = attention_mask_BT.to(self.device, torch.int64)
        with self.running, torch.inference_mode(), quiet_log():
            output = self.module(**inputs, **backbone_kwargs(self.module))
        logits_BTV: Tensor = output.logits
        return logits_BTV

    def with_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
        """The same model with another tokenizer (shares the weights)."""
        other = object.__new__(LanguageModel)
        other.__dict__.update(self.__dict__)
        other.tokenizer = tokenizer
        other.identity = replace(self.identity, tokenizer_digest=tokenizer_digest(tokenizer))
        return other


def wrap_model(
    module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None, name: str | None = None
) -> LanguageModel:
    """Take a Hugging Face model that is already in memory.

    The module is put in evaluation mode and its parameters are frozen; it is not copied.

    Args:
        module: a ``transformers`` model with or without a language-model head.
        tokenizer: its tokenizer, for work on text.
        name: what to call it; the configuration's name, or the class, when None.

    Raises:
        ModelFormatError: if it is not a transformers model, or has no list of blocks.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        ...                      num_attention_heads=2)
        >>> wrap_model(LlamaForCausalLM(config), name="toy").num_layers
        2
    """
    if not hasattr(module, "base_model") or not hasattr(module, "config"):
        raise ModelFormatError(f"{type(module).__name__} is not a Hugging Face transformers model.")
    chosen = name or getattr(module, "name_or_path", "") or type(module).__name__
    return LanguageModel(module, tokenizer, name=chosen, model_digest=module_digest(module))
