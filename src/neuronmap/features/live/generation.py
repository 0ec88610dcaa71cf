"""Continuing a prompt token by token while interventions act on every forward pass.

Sampling adds seeded Gumbel noise to the logits and takes the largest, which draws from the softmax exactly. Runs with the same seed
share the noise of each step, so a steered run leaves the clean one only where the intervention changed what comes next.

Shapes: T tokens so far, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuronmap.errors import ConfigError, InputError, ModelFormatError
from neuronmap.features.live.interventions import Site, applied
from neuronmap.features.live.reading import Context, special_ids
from neuronmap.models import LanguageModel
from neuronmap.models.quiet import quiet_log
from neuronmap.progress import Task

__all__ = ["Continuation", "check_request", "continue_prompt"]


@dataclass(frozen=True)
class Continuation:
    """What a model wrote after a prompt.

    Attributes:
        ids: token ids of the continuation, the prompt left out.
        stopped: whether the model ended it itself (an end token, which is the last of ``ids``).
    """

    ids: tuple[int, ...]
    stopped: bool


def check_request(model: LanguageModel, prompt: Context, max_tokens: int, temperature: float) -> None:
    """Refuse early what cannot be generated.

    Raises:
        ConfigError: options out of range, or more tokens than the model can take.
        ModelFormatError: a model without a language-model head.
        InputError: the prompt was too long and would be continued from its middle.
    """
    if not model.has_lm_head:
        raise ModelFormatError(f"{model.identity.name} has no language-model head, so it cannot continue a text.")
    if max_tokens < 1:
        raise ConfigError(f"max_tokens = {max_tokens}: at least 1 token is generated.")
    if not 0.0 <= temperature < float("inf"):
        raise ConfigError(f"temperature = {temperature}: 0 (always the likeliest token) or above.")
    if prompt.left_out:
        raise InputError(f"The prompt has {len(prompt) + prompt.left_out} tokens; at most {len(prompt)} are taken.")
    if model.max_length is not None and len(prompt) + max_tokens > model.max_length:
        raise ConfigError(
            f"A prompt of {len(prompt)} tokens and max_tokens = {max_tokens} are more than {model.identity.name} can take "
            f"({model.max_length} tokens)."
        )


@torch.inference_mode()
def continue_prompt(
    model: LanguageModel,
    prompt: Context,
    chosen: Sequence[Site],
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
    cache: bool = True,
    task: Task | None = None,
) -> Continuation:
    """Generate, with the interventions of ``chosen`` (none: the clean run).

    Args:
        model: the language model.
        prompt: what to continue.
        chosen: interventions by SAE.
        max_tokens: most tokens to generate.
        temperature: 0 takes the likeliest token.
        seed: of the noise.
        cache: keep keys and values, where the model can; without, every step runs all tokens again.
        task: advanced by one a token.
    """
    cache = cache and "past_key_values" in inspect.signature(model.module.forward).parameters
    special, stop = special_ids(model), _stop_ids(model)
    generator = torch.Generator().manual_seed(seed)
    ids = prompt.ids_T.tolist()
    past, first = None, 0
    with applied(chosen), model.running, quiet_log():
        for _ in range(max_tokens):
            ids_T = np.asarray(ids, dtype=np.int64)
            so_far = Context(ids_T, np.isin(ids_T, special))
            for site in chosen:
                masked_BT = torch.from_numpy(site.attached.token_mask(so_far)[None, first:])
                site.begin(masked_BT, first, len(prompt))
            inputs = {"input_ids": torch.from_numpy(ids_T[None, first:]).to(model.device)}
            if cache:
                output = model.module(**inputs, past_key_values=past, use_cache=True)
                past, first = output.past_key_values, len(ids)
            else:
                output = model.module(**inputs, **({"use_cache": False} if _takes_cache(model) else {}))
            token = _choose(output.logits[0, -1], temperature, generator)
            ids.append(token)
            if task is not None:
                task.advance(1)
            if token in stop:
                return Continuation(tuple(ids[len(prompt) :]), True)
    return Continuation(tuple(ids[len(prompt) :]), False)


def _takes_cache(model: LanguageModel) -> bool:
    return "use_cache" in inspect.signature(model.module.forward).parameters


def _choose(logits_V: Tensor, temperature: float, generator: torch.Generator) -> int:
    scores_V = logits_V.float().cpu()
    if not bool(scores_V.isfinite().any()) or bool(scores_V.isnan().any()):
        raise InputError(
            "The model gives NaN logits.", hint="Use a smaller strength, or load the model with dtype='float32'."
        )
    if temperature > 0:
        uniform_V = torch.rand(scores_V.shape, generator=generator).clamp_min_(1e-30)
        scores_V = scores_V / temperature - (-uniform_V.log()).clamp_min_(1e-30).log()
    return int(scores_V.argmax())


def _stop_ids(model: LanguageModel) -> set[int]:
    found: set[int] = set()
    places = (getattr(model.module, "generation_config", None), model.module.config, model.tokenizer)
    for place in places:
        ids = getattr(place, "eos_token_id", None)
        found.update(ids if isinstance(ids, list | tuple) else [] if ids is None else [ids])
    return {int(token) for token in found}
