"""A prompt through the layers: how sure each concept's probe is at every token, greyed where that says nothing.

Legend: L layers, T tokens, W width, C columns, R resamples, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from neuronmap.abstraction.probes.probe_set import ProbeSet
from neuronmap.abstraction.reading import layer_hooks
from neuronmap.abstraction.record import ConceptResult, PromptConcept, Series, Trajectory
from neuronmap.activations.items import TokenizedText, tokenize_text
from neuronmap.errors import InputError, ModelFormatError
from neuronmap.models import LanguageModel, capture
from neuronmap.models.unembedding import find_unembedding

__all__ = ["checked_prompt", "follow_prompt", "logit_lens"]

_LENS_TOKENS = 3


def follow_prompt(
    model: LanguageModel,
    prompt: str,
    concepts: Sequence[tuple[ConceptResult, ProbeSet]],
    layers: Sequence[int],
    *,
    lens: bool = True,
) -> Trajectory:
    """Follow concepts through one prompt.

    Args:
        model: the model that the probes were fitted on.
        prompt: the text.
        concepts: each concept's record and probes.
        layers: the layers of the probes.
        lens: also put every token through final norm and unembedding.

    Raises:
        InputError: the prompt has fewer than two tokens (position 0 says nothing), or is too long.
    """
    found = checked_prompt(model, prompt)
    hooks = layer_hooks(model, layers)
    taken = capture(model, torch.tensor([found.ids]), hooks)
    x_LTW = torch.stack([taken[hook.name][0].float().cpu() for hook in hooks])
    tokens = [
        prompt[left:right] if right > left else str(_token_text(model, token))
        for token, (left, right) in zip(found.ids, found.offsets, strict=True)
    ]
    words, chances = logit_lens(model, x_LTW) if lens and model.has_lm_head else (None, None)
    return Trajectory(
        prompt=prompt,
        tokens=tokens,
        layers=list(layers),
        concepts=[_followed(result, probes, x_LTW, layers) for result, probes in concepts],
        lens=words,
        lens_probability=chances,
    )


def checked_prompt(model: LanguageModel, prompt: str) -> TokenizedText:
    """A prompt's tokens.

    Raises:
        InputError: it has fewer than two tokens, or more than the model takes.
    """
    found = tokenize_text(model, prompt)
    if len(found.ids) < 2:
        raise InputError(
            f"The prompt {prompt!r} is {'1 token' if found.ids else 'no token'}: position 0 says nothing, so there must be at least two.",
            hint="Write a whole phrase.",
        )
    return found


def _token_text(model: LanguageModel, token: int) -> str:
    return str(model.tokenizer.convert_ids_to_tokens(token)) if model.tokenizer is not None else str(token)


def _followed(result: ConceptResult, probes: ProbeSet, x_LTW: Tensor, layers: Sequence[int]) -> PromptConcept:
    z_LTW = probes.standardized(x_LTW)
    odds_LTC, drawn_RLTC = probes.log_odds(z_LTW), probes.resampled_log_odds(z_LTW)
    inside_LT, significant_L = probes.in_domain(z_LTW), probes.significant_L > 0
    grey = [
        [_grey(token, bool(significant_L[at]), bool(inside_LT[at, token])) for at in range(len(layers))]
        for token in range(x_LTW.shape[1])
    ]
    shown_LT = torch.tensor([[cell == "" for cell in row] for row in grey]).T
    column = _column(odds_LTC, shown_LT)
    odds_LT, drawn_RLT = odds_LTC[..., column], drawn_RLTC[..., column]
    peak_layer, peak_interval, peak_token = _peak(odds_LT, drawn_RLT, shown_LT, layers)
    classes = list(result.concept["classes"])
    return PromptConcept(
        concept=result.concept["name"],
        title=result.concept["title"],
        log_odds=_rows(odds_LT),
        classes=classes if len(classes) == 2 else ["the rest", classes[column]],
        grey=grey,
        peak_layer=peak_layer,
        peak_interval=peak_interval,
        peak_token=peak_token,
    )


def _grey(token: int, significant: bool, inside: bool) -> str:
    if token == 0:
        return "position 0"
    if not significant:
        return "not significant"
    return "" if inside else "out of domain"


def _column(odds_LTC: Tensor, shown_LT: Tensor) -> int:
    """The class that is shown: the only column, or the one with the largest log-odds where they say something."""
    if odds_LTC.shape[2] == 1:
        return 0
    odds_LTC = odds_LTC if not bool(shown_LT.any()) else odds_LTC.masked_fill(~shown_LT[..., None], -torch.inf)
    return int(odds_LTC.amax((0, 1)).argmax())


def _peak(
    odds_LT: Tensor, drawn_RLT: Tensor, shown_LT: Tensor, layers: Sequence[int]
) -> tuple[int | None, list[int] | None, int | None]:
    """Strongest token, its strongest layer, and first and last of the layers there that cannot be told from it."""
    if not bool(shown_LT.any()):
        return None, None, None
    strength_LT = odds_LT.abs().masked_fill(~shown_LT, -1.0)
    token = int(strength_LT.amax(0).argmax())
    place = int(strength_LT[:, token].argmax())
    drawn_RL = drawn_RLT[:, :, token].abs()
    low_L = torch.quantile(drawn_RL[:, place, None] - drawn_RL, 0.05, dim=0)
    near = [at for at in range(len(layers)) if bool(shown_LT[at, token]) and (at == place or float(low_L[at]) <= 0)]
    return int(layers[place]), [int(layers[near[0]]), int(layers[near[-1]])], token


def _rows(values_LT: Tensor) -> list[Series]:
    return [[value if math.isfinite(value) else None for value in row] for row in values_LT.T.tolist()]


def logit_lens(model: LanguageModel, x_LTW: Tensor) -> tuple[list[list[list[str]]] | None, list[Series] | None]:
    """What the final norm and the unembedding make of every layer (nostalgebraist 2020): the three best tokens and the first's probability.

    Returns:
        Tokens [T][L][3] and probabilities [T][L]; None twice where the model's way to the head is not a norm and a product.
    """
    try:
        unembedding = find_unembedding(model)
    except ModelFormatError:
        return None, None
    way = [model.module.get_submodule(name) for name in unembedding.before_head.names]
    head = model.module.get_output_embeddings()
    words: list[list[list[str]]] = [[] for _ in range(x_LTW.shape[1])]
    chances: list[Series] = [[] for _ in range(x_LTW.shape[1])]
    for x_TW in x_LTW:
        read_TE = x_TW.to(unembedding.weight_VE)
        with torch.inference_mode():
            for module in way:
                read_TE = module(read_TE)
            p_TV = torch.softmax(head(read_TE * unembedding.before_head.factor).float(), dim=1)
        best = p_TV.topk(_LENS_TOKENS, dim=1)
        for token in range(x_LTW.shape[1]):
            ids = best.indices[token].tolist()
            words[token].append([_decoded(model, int(index)) for index in ids])
            chances[token].append(float(best.values[token, 0]))
    return words, chances


def _decoded(model: LanguageModel, token: int) -> str:
    return str(model.tokenizer.decode([token])) if model.tokenizer is not None else str(token)
