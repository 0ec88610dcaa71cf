"""Feature absorption by first letter: a latent for "starts with S" that is silent on "snake", whose own latent has taken it over.

As in 2409.14507 and SAEBench, for each letter that a dense probe finds (test F1 above 0.6; 20 letters are needed, else the model does not
spell well enough and nothing is measured):

    u                unit direction of the letter's dense probe
    proj_i           f_i (W_dec_i . u)                               what latent i says along u
    main             latents of the k-sparse probe, k growing from 1 to 10 while its test F1 rises by more than 0.03
    absorbers        up to 3 others of largest proj with cos(W_dec_i, u) >= 0.1
    fraction         0 if absorbers < 0.4 of u . (x - b_dec), or the main latents say it all; 1 if these say nothing;
                     else a / (a + main), a = the absorbers' part that the main latents leave open
    full             all main latents are silent, and the latent of largest proj has cos >= 0.025 and >= 0.4 of u . (x - b_dec)

over the test words of the letter that the probe finds. Where we differ from SAEBench: latents are ranked by mean difference, not by an L1
probe; b_dec is taken off before projecting (what the bias says is not for latents to say); examples before the word are the same three
for all words; only letters that reach the F1 are averaged.

Shapes: N words, D = d_in, F = width of a code, L letters.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neuronmap.errors import InputError, ModelError
from neuronmap.evaluation.metrics import Estimate
from neuronmap.evaluation.rows import Autoencoder
from neuronmap.evaluation.suites.coding import decoder_bias, encoded, l0_of, pieces
from neuronmap.evaluation.suites.record import AbsorptionOf, AbsorptionSuite, LetterAbsorption
from neuronmap.evaluation.suites.sparse_probe import held_out_f1
from neuronmap.models import HookPoint, LanguageModel, capture
from neuronmap.progress import Progress

__all__ = ["TEMPLATE", "LetterWords", "absorbed", "absorption_suite", "absorption_suite_of_rows", "letter_words"]

_EXAMPLES = ("cabin", "river", "monkey")
TEMPLATE = "".join(f" {word} has the first letter: {word[0].upper()}\n" for word in _EXAMPLES)
"""What stands before the word: three examples, as in SAEBench (which draws up to ten)."""

NEEDED_F1 = 0.6
NEEDED_LETTERS = 20
_MOST_MAIN = 10
_F1_RISE = 0.03
_ABSORBERS = 3
_ABSORBER_COSINE = 0.1
_FULL_COSINE = 0.025
_PROPORTION = 0.4
_SILENT = 1e-8
_TEST_SHARE = 0.25
_FEWEST_WORDS = 8


@dataclass(frozen=True)
class LetterWords:
    """Words that are single tokens.

    Attributes:
        words: lower case.
        token_N: int64 [N], the token of each, with its leading space.
        letter_N: int64 [N], 0 for a.
        train_N: bool [N].
    """

    words: tuple[str, ...]
    token_N: npt.NDArray[np.int64]
    letter_N: npt.NDArray[np.int64]
    train_N: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, words: Sequence[str], tokens: Sequence[int], seed: int) -> LetterWords:
        """With a quarter of each letter's words, and at least one, to test on."""
        letter_N = np.array([ord(word[0]) - ord("a") for word in words], dtype=np.int64)
        train_N = np.ones(len(words), dtype=bool)
        rng = np.random.default_rng(seed)
        for letter in np.unique(letter_N):
            mine = np.flatnonzero(letter_N == letter)
            train_N[rng.permutation(mine)[: max(1, round(len(mine) * _TEST_SHARE))]] = False
        return cls(tuple(words), np.asarray(tokens, dtype=np.int64), letter_N, train_N)


def letter_words(model: LanguageModel, per_letter: int, seed: int) -> LetterWords:
    """Words of the vocabulary: one token, a leading space, ASCII letters only, two letters or more; at most so many a letter.

    Raises:
        ModelError: the model has no tokenizer.
    """
    tokenizer = _tokenizer(model)
    ids = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    decoded = tokenizer.batch_decode([[at] for at in ids], clean_up_tokenization_spaces=False)
    found: dict[str, int] = {}
    for at, text in zip(ids, decoded, strict=True):
        word = text[1:]
        spelled = text[:1] == " " and len(word) > 1 and word.isascii() and word.isalpha() and word[1:].islower()
        if spelled and (word.islower() or word.lower() not in found):
            found[word.lower()] = at
    rng = np.random.default_rng(seed)
    chosen: list[str] = []
    for letter in string.ascii_lowercase:
        mine = sorted(word for word in found if word[0] == letter and word not in _EXAMPLES)
        chosen += sorted(rng.permutation(mine)[:per_letter].tolist())
    return LetterWords.of(chosen, [found[word] for word in chosen], seed)


def absorption_suite(
    sae: Autoencoder,
    beside: Callable[[float], Mapping[str, Autoencoder]],
    *,
    model: LanguageModel,
    hook: HookPoint,
    per_letter: int,
    batch_tokens: int,
    bootstrap: int,
    seed: int,
    progress: Progress,
) -> AbsorptionSuite:
    """Read the words after the examples, and measure absorption in every dictionary.

    Args:
        sae: the SAE.
        beside: the baselines for an L0, each with ``W_dec``: for that of the SAE on the words.
        model, hook: where the SAE reads.
        per_letter: most words a letter.
        batch_tokens: tokens in a forward pass.
        bootstrap: resamples of words.
        seed: which words are taken and tested on, and of the resamples.
        progress: where bars go.
    """
    words = letter_words(model, per_letter, seed)
    if not len(words.words):
        return _impossible(0, 0, {}, "its vocabulary holds no word that is a single token with a leading space")
    rows_ND = _read(model, hook, words, batch_tokens, progress)
    dictionaries = {"sae": sae, **beside(l0_of(sae, [rows_ND]))}
    return absorption_suite_of_rows(dictionaries, rows_ND, words, bootstrap=bootstrap, seed=seed, progress=progress)


def absorption_suite_of_rows(
    dictionaries: Mapping[str, Autoencoder],
    rows_ND: Tensor,
    words: LetterWords,
    *,
    bootstrap: int,
    seed: int,
    progress: Progress,
) -> AbsorptionSuite:
    """The same from activations of the words that were read already; see :func:`absorption_suite`."""
    train_N, letter_N = words.train_N, words.letter_N
    x_ND = rows_ND.double()
    x_ND = x_ND - x_ND[torch.from_numpy(train_N)].mean(0)
    scaled_ND = (x_ND / x_ND.square().mean().sqrt()).numpy()
    f1: dict[str, float] = {}
    probes: dict[int, tuple[Tensor, npt.NDArray[np.bool_]]] = {}
    with progress.task("Letter probes", 26, "letters") as bar:
        for letter in range(26):
            positive_N = letter_N == letter
            if positive_N[train_N].sum() >= _FEWEST_WORDS and positive_N[~train_N].sum() >= 2:
                value, odds_N, direction_D = held_out_f1(scaled_ND, positive_N, train_N)
                f1[string.ascii_lowercase[letter]] = value
                if value > NEEDED_F1:
                    probes[letter] = torch.from_numpy(direction_D).float(), (odds_N > 0) & positive_N & ~train_N
            bar.advance(1)
    if len(probes) < NEEDED_LETTERS:
        return _impossible(
            len(words.words),
            len(probes),
            f1,
            f"this model cannot: {len(probes)} letters reach a probe F1 of {NEEDED_F1} here, and {NEEDED_LETTERS} are needed",
        )
    found = {}
    with progress.task("Absorption", len(dictionaries), "dictionaries") as bar:
        for name, dictionary in dictionaries.items():
            found[name] = _absorption_of(dictionary, rows_ND, words, probes, bootstrap, seed)
            bar.advance(1)
    return AbsorptionSuite(
        possible=True,
        reason=None,
        words=len(words.words),
        letters_reached=len(probes),
        probe_f1=f1,
        template=TEMPLATE,
        dictionaries=found,
    )


def absorbed(
    codes_NF: Tensor, rows_ND: Tensor, W_dec_FD: Tensor, direction_D: Tensor, main: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """How much of a letter's direction is absorbed on some words; the definition at the top of this module.

    Args:
        codes_NF: their codes.
        rows_ND: their activations, without the decoder's bias.
        W_dec_FD: the decoder.
        direction_D: of the probe, any length.
        main: latents that stand for the letter.

    Returns:
        Absorption fraction float64 [N], and bool [N], whether absorption is full.
    """
    u_D = (direction_D / direction_D.norm()).double()
    along_F = W_dec_FD.double() @ u_D
    cosine_F = along_F / W_dec_FD.double().norm(dim=1).clamp_min(1e-12)
    proj_NF, total_N = codes_NF.double() * along_F, rows_ND.double() @ u_D
    main_F = torch.zeros(len(along_F), dtype=torch.bool)
    main_F[list(main)] = True
    main_N = proj_NF[:, main_F].sum(1)
    others_NF = proj_NF.masked_fill(main_F | (cosine_F < _ABSORBER_COSINE), 0.0).clamp_min(0)
    top_N = others_NF.topk(min(_ABSORBERS, others_NF.shape[1]), dim=1).values.sum(1)
    open_N = torch.minimum(top_N, total_N - main_N)
    shared_N = open_N / torch.where(open_N + main_N > 0, open_N + main_N, 1.0)
    fraction_N = torch.where(main_N <= 0, 1.0, shared_N.clamp(0, 1))
    nothing_N = (main_N >= total_N) | (top_N < _PROPORTION * total_N)
    fraction_N = torch.where(nothing_N, 0.0, fraction_N)
    largest_N, which_N = proj_NF.max(1)
    silent_N = (codes_NF[:, main_F].abs() < _SILENT).all(1)
    full_N = silent_N & (cosine_F[which_N] >= _FULL_COSINE) & (total_N > 0) & (largest_N >= _PROPORTION * total_N)
    return fraction_N, full_N


def _absorption_of(
    dictionary: Autoencoder,
    rows_ND: Tensor,
    words: LetterWords,
    probes: dict[int, tuple[Tensor, npt.NDArray[np.bool_]]],
    bootstrap: int,
    seed: int,
) -> AbsorptionOf:
    W_dec_FD: Tensor = dictionary.W_dec.detach().float().cpu()  # type: ignore[attr-defined]
    bias_D = decoder_bias(dictionary)
    candidates = _candidates(dictionary, rows_ND, words, list(probes))
    wanted = sorted({latent for latents in candidates.values() for latent in latents})
    place = {latent: at for at, latent in enumerate(wanted)}
    codes_NW = torch.cat([encoded(dictionary, part_nD)[:, wanted] for part_nD in pieces(rows_ND, 1024)]).double()
    letters, fractions, fulls = [], [], []
    for letter, (direction_D, found_N) in probes.items():
        columns_NK = codes_NW[:, [place[latent] for latent in candidates[letter]]].numpy()
        count, f1 = _main_count(columns_NK, words.letter_N == letter, words.train_N)
        main = candidates[letter][:count]
        chosen = torch.from_numpy(np.flatnonzero(found_N))
        if not len(chosen) or not main:
            continue
        x_nD = rows_ND[chosen]
        fraction_n, full_n = absorbed(encoded(dictionary, x_nD), x_nD - bias_D, W_dec_FD, direction_D, main)
        fractions.append(fraction_n.numpy())
        fulls.append(full_n.double().numpy())
        letters.append(
            LetterAbsorption(
                letter=string.ascii_lowercase[letter],
                main_latents=tuple(main),
                main_f1=f1,
                probe_true_positives=len(chosen),
                absorption_fraction=float(fraction_n.mean()),
                full_absorption=int(full_n.sum()),
            )
        )
    return AbsorptionOf(
        mean_absorption_fraction=_mean_of_letters(fractions, bootstrap, seed),
        mean_full_absorption=_mean_of_letters(fulls, bootstrap, seed),
        mean_main_f1=float(np.mean([one.main_f1 for one in letters])) if letters else 0.0,
        mean_main_latents=float(np.mean([len(one.main_latents) for one in letters])) if letters else 0.0,
        letters=tuple(letters),
    )


def _candidates(
    dictionary: Autoencoder, rows_ND: Tensor, words: LetterWords, letters: list[int]
) -> dict[int, list[int]]:
    """For each letter the latents that rise most with it on training words, the best first; their sums are taken in pieces."""
    train_n = torch.from_numpy(words.train_N)
    letter_n = torch.from_numpy(words.letter_N)
    sums_LF = torch.zeros(26, dictionary.d_sae, dtype=torch.float64)
    size_F, active_F = torch.zeros(dictionary.d_sae, dtype=torch.float64), torch.zeros(dictionary.d_sae)
    for part_n in pieces(train_n.nonzero().squeeze(1), 1024):
        codes_nF = encoded(dictionary, rows_ND[part_n])
        sums_LF.index_add_(0, letter_n[part_n], codes_nF.double())
        size_F += codes_nF.abs().double().sum(0)
        active_F += (codes_nF != 0).sum(0)
    count_L = torch.bincount(letter_n[train_n], minlength=26).double()
    mean_F = torch.where(active_F > 0, size_F / active_F.clamp_min(1), 1.0)
    found = {}
    for letter in letters:
        rest = count_L.sum() - count_L[letter]
        difference_F = sums_LF[letter] / count_L[letter] - (sums_LF.sum(0) - sums_LF[letter]) / rest
        order_F = (difference_F / mean_F).argsort(descending=True, stable=True)[:_MOST_MAIN]
        found[letter] = [int(at) for at in order_F if difference_F[at] > 0]
    return found


def _main_count(
    columns_NK: npt.NDArray[np.float64], positive_N: npt.NDArray[np.bool_], train_N: npt.NDArray[np.bool_]
) -> tuple[int, float]:
    """k of the k-sparse probe, and its F1: k grows while the F1 on test words rises by more than 0.03."""
    size_K = np.abs(columns_NK[train_N]).max(0, initial=0.0) if columns_NK.shape[1] else np.zeros(0)
    scaled_NK = columns_NK / np.where(size_K > 0, size_K, 1.0)
    best, count = -1.0, 0
    for k in range(1, columns_NK.shape[1] + 1):
        value = held_out_f1(scaled_NK[:, :k], positive_N, train_N)[0]
        if value <= best + _F1_RISE:
            break
        best, count = value, k
    return count, max(best, 0.0)


def _mean_of_letters(values: list[npt.NDArray[np.float64]], bootstrap: int, seed: int) -> Estimate:
    """Mean over letters of their means over words; words are resampled within letters."""
    count = sum(len(one) for one in values)
    if not count:
        return Estimate(
            value=None, count=0, reason="no letter has a test word that its probe finds and a latent that rises with it"
        )
    value = float(np.mean([one.mean() for one in values]))
    if bootstrap < 2:
        return Estimate(value=value, count=count, reason="no bootstrap was asked for")
    rng = np.random.default_rng(seed)
    drawn_R = np.mean(
        [
            (rng.multinomial(len(one), np.full(len(one), 1 / len(one)), size=bootstrap) / len(one)) @ one
            for one in values
        ],
        axis=0,
    )
    low, high = np.quantile(drawn_R, [0.025, 0.975])
    return Estimate(value=value, error=float(drawn_R.std(ddof=1)), low=float(low), high=float(high), count=count)


@torch.inference_mode()
def _read(model: LanguageModel, hook: HookPoint, words: LetterWords, batch_tokens: int, progress: Progress) -> Tensor:
    """Activations of the words' own tokens [N, D]; all prompts are the examples and one token, so they are equally long."""
    start = list(_tokenizer(model)(TEMPLATE, verbose=False)["input_ids"])
    if model.max_length is not None and len(start) + 1 > model.max_length:
        raise InputError(
            f"{model.identity.name} takes {model.max_length} tokens, fewer than the examples before a word."
        )
    ids_NT = torch.cat(
        [torch.tensor(start).expand(len(words.words), -1), torch.from_numpy(words.token_N)[:, None]], dim=1
    )
    rows = []
    with progress.task("Reading words", ids_NT.numel(), "tokens") as bar:
        for part_BT in pieces(ids_NT, max(1, batch_tokens // ids_NT.shape[1])):
            rows.append(capture(model, part_BT, [hook])[hook.name][:, -1].float().cpu())
            bar.advance(part_BT.numel())
    rows_ND = torch.cat(rows)
    if not bool(rows_ND.isfinite().all()):
        raise InputError(f"{model.identity.name} gives NaN or infinite activations at {hook.name}.")
    return rows_ND


def _tokenizer(model: LanguageModel) -> Any:
    if model.tokenizer is None:
        raise ModelError(f"{model.identity.name} has no tokenizer, so there are no words to spell.")
    return model.tokenizer


def _impossible(words: int, reached: int, f1: dict[str, float], reason: str) -> AbsorptionSuite:
    return AbsorptionSuite(
        possible=False,
        reason=reason,
        words=words,
        letters_reached=reached,
        probe_f1=f1,
        template=TEMPLATE,
        dictionaries={},
    )
