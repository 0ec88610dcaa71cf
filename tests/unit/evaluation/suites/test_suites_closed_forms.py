"""Each suite's figures where the truth is known by construction."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from neuronmap.concepts import ConceptData, Item
from neuronmap.errors import ConfigError, InputError, MismatchError
from neuronmap.evaluation import evaluate_sae
from neuronmap.evaluation.suites.absorption import LetterWords, absorbed, absorption_suite_of_rows
from neuronmap.evaluation.suites.baselines import make_baselines
from neuronmap.evaluation.suites.probing import concept_sets, probing_suite_of_rows
from neuronmap.evaluation.suites.settings import SuiteSettings, check_suites
from neuronmap.evaluation.suites.sparse_probe import ranked_latents
from neuronmap.evaluation.suites.stability import stability_suite
from neuronmap.evaluation.suites.structure import meta_explained, structure_suite, unit_decoder
from neuronmap.progress import SilentProgress

QUIET = SilentProgress()


def linear(W_dec_FD: torch.Tensor) -> SimpleNamespace:
    """A dictionary whose code is relu(x W_dec'): with orthonormal rows it reads off what was planted."""
    return SimpleNamespace(
        d_sae=len(W_dec_FD),
        d_in=W_dec_FD.shape[1],
        W_dec=W_dec_FD,
        encode=lambda x: (x @ W_dec_FD.T).relu(),
        decode=lambda f: f @ W_dec_FD,
    )


# --- baselines -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(600, 12, generator=generator) @ torch.randn(12, 12, generator=generator) + 3.0


def test_baselines_have_their_closed_forms(rows: torch.Tensor) -> None:
    made = make_baselines(rows, 48, 4.2, 0)
    assert list(made) == ["identity", "pca", "random", "neurons"]
    explained = {
        name: evaluate_sae(one, rows, bootstrap=0, progress=QUIET).reconstruction.explained_variance.value
        for name, one in made.items()
    }
    values = torch.linalg.eigvalsh(torch.cov(rows.double().T)).flip(0)
    assert explained["identity"] == pytest.approx(1.0, abs=1e-9)
    assert explained["pca"] == pytest.approx(float(values[:4].sum() / values.sum()), abs=1e-5)
    away = (rows.double() - rows.double().mean(0)).square()
    assert explained["neurons"] == pytest.approx(float(away.topk(4, dim=1).values.sum() / away.sum()), abs=1e-5)
    kept = (made["random"].encode(rows) != 0).sum(1)
    assert int(kept.max()) == 4 == made["random"].facts.k
    assert int((made["neurons"].encode(rows) != 0).sum(1).max()) == 4


def test_the_scale_of_random_directions_is_the_best_one(rows: torch.Tensor) -> None:
    random = make_baselines(rows, 48, 4, 0)["random"]
    missed = [
        float((rows - random.b_dec - factor * (random.encode(rows) @ random.W_dec)).square().sum())
        for factor in (0.95, 1.0, 1.05)
    ]
    assert missed[1] < min(missed[0], missed[2])


def test_one_row_is_too_few_to_fit_on() -> None:
    with pytest.raises(InputError, match="at least 2"):
        make_baselines(torch.zeros(1, 4), 8, 2, 0)


# --- probing ---------------------------------------------------------------------------------------------------------


def contrast(lemmas: int = 24) -> ConceptData:
    items = []
    for lemma in range(lemmas):
        split = "test" if lemma % 4 == 0 else "train"
        items += [
            Item(f"{lemma} {label}", label, (0, 1), f"lemma{lemma}", f"pair{lemma}", "", split)
            for label in ("no", "yes", "no", "yes")
        ]
    return ConceptData("planted", ("no", "yes"), tuple(items))


@pytest.fixture(scope="module")
def planted() -> tuple[ConceptData, torch.Tensor, SimpleNamespace]:
    """Latent 7 is the label; the others are noise that does not depend on it."""
    data = contrast()
    codes_NF = torch.rand(len(data.items), 16, generator=torch.Generator().manual_seed(1))
    codes_NF[:, 7] = torch.tensor([float(item.label == "yes") for item in data.items])
    sae = SimpleNamespace(d_sae=16, d_in=16, W_dec=torch.eye(16), encode=torch.clone, decode=torch.clone)
    return data, codes_NF, sae


def test_a_latent_that_is_the_label_gives_auc_1_at_k_1(
    planted: tuple[ConceptData, torch.Tensor, SimpleNamespace],
) -> None:
    data, x_ND, sae = planted
    noise = SimpleNamespace(**{**vars(sae), "encode": lambda x: x[:, [0, 1, 2, 3]], "d_sae": 4})
    suite = probing_suite_of_rows(
        {"sae": sae, "noise": noise}, [("concepts", data, x_ND)], {}, ks=(1, 2), bootstrap=200, seed=0, progress=QUIET
    )
    first = suite.sets[0].scores["sae"][0]
    assert first.latents == (7,)
    assert (first.auc.value, first.accuracy.value, first.f1.value) == (1.0, 1.0, 1.0)
    assert first.raw_auc is not None
    assert first.raw_auc.value == 1.0
    assert first.auc.low == pytest.approx(
        1 - 3 / suite.sets[0].test_clusters
    )  # rule of three: no resample can see the error
    assert suite.sets[0].test_clusters == 6
    noisy = suite.sets[0].scores["noise"][0]
    assert noisy.auc.value is not None
    assert 0.2 < noisy.auc.value < 0.8
    lead = suite.means["noise"][0].lead
    assert lead is not None
    assert lead.value == pytest.approx(1 - noisy.auc.value)
    assert suite.means["dense"][0].auc.value == 1.0


def test_latents_are_ranked_on_training_items_alone(
    planted: tuple[ConceptData, torch.Tensor, SimpleNamespace],
) -> None:
    data, x_ND, sae = planted
    test_N = torch.tensor([item.split == "test" for item in data.items])
    turned = x_ND.clone()
    turned[test_N, 7] = 1 - turned[test_N, 7]
    suite = probing_suite_of_rows(
        {"sae": sae}, [("concepts", data, turned)], {}, ks=(1,), bootstrap=0, seed=0, progress=QUIET
    )
    score = suite.sets[0].scores["sae"][0]
    assert (score.latents, score.auc.value) == ((7,), 0.0)


def test_latents_are_compared_on_one_scale() -> None:
    codes = torch.tensor([[100.0, 1.0], [101.0, 0.0], [100.0, 1.0], [99.0, 0.0]])
    order, mean = ranked_latents(codes, torch.tensor([True, False, True, False]))
    assert order.tolist() == [1, 0]
    assert mean.tolist() == [100.0, 1.0]


def test_what_cannot_be_probed_is_said(planted: tuple[ConceptData, torch.Tensor, SimpleNamespace]) -> None:
    data, x_ND, sae = planted
    few = ConceptData("few", data.classes, data.items[:6])
    with pytest.raises(InputError, match="too few"):
        probing_suite_of_rows(
            {"sae": sae}, [("concepts", few, x_ND[:6])], {}, ks=(1,), bootstrap=0, seed=0, progress=QUIET
        )
    with pytest.raises(ConfigError, match="ks"):
        probing_suite_of_rows(
            {"sae": sae}, [("concepts", data, x_ND)], {}, ks=(0,), bootstrap=0, seed=0, progress=QUIET
        )
    sets, skipped = concept_sets(48, 0)
    assert len(sets) >= 10
    assert all("5 classes" in reason for reason in skipped.values())


# --- absorption ------------------------------------------------------------------------------------------------------


def letters(per_letter: int = 12) -> LetterWords:
    names = [chr(97 + letter) + "x" * (1 + word) for letter in range(26) for word in range(per_letter)]
    return LetterWords.of(names, range(len(names)), 0)


@pytest.mark.parametrize("absorbing", [0, 3])
def test_absorption_is_the_planted_share(absorbing: int) -> None:
    """Latents 0-25 are letters; ``absorbing`` test words of each are taken over by a child latent, 26-51, along the letter."""
    words = letters(16)
    eye = torch.eye(52)
    decoder = eye.clone()
    decoder[26:] = (eye[:26] + eye[26:]) / 2**0.5  # a child says its letter, and something of its own
    letter_N = torch.from_numpy(words.letter_N)
    codes = torch.nn.functional.one_hot(letter_N, 52).float()
    for letter in range(26):
        mine = np.flatnonzero((words.letter_N == letter) & ~words.train_N)[:absorbing]
        codes[mine] = 0.0
        codes[mine, 26 + letter] = 2**0.5
    rows = codes @ decoder
    table = {tuple(row.tolist()): code for row, code in zip(rows, codes, strict=True)}
    sae = SimpleNamespace(
        d_sae=52, d_in=52, W_dec=decoder, encode=lambda x: torch.stack([table[tuple(row.tolist())] for row in x])
    )
    suite = absorption_suite_of_rows({"sae": sae}, rows, words, bootstrap=100, seed=0, progress=QUIET)
    assert suite.possible
    assert suite.letters_reached == 26
    found = suite.dictionaries["sae"]
    assert all(one.main_latents == (ord(one.letter) - 97,) for one in found.letters)
    assert all(one.probe_true_positives == 4 for one in found.letters)
    assert found.mean_absorption_fraction.value == pytest.approx(absorbing / 4)
    assert found.mean_full_absorption.value == pytest.approx(absorbing / 4)


def test_partial_absorption_is_the_absorbers_share() -> None:
    decoder = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    codes = torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.75, 0.25, 0.0]])
    fraction, full = absorbed(codes, codes @ decoder, decoder, torch.tensor([2.0, 0.0]), [0])
    assert fraction.tolist() == [0.75, 0.0, 0.0, 0.0]  # the last: absorbers say less than 0.4 of it
    assert full.tolist() == [False, False, False, False]


def test_a_model_that_cannot_spell_is_told_so() -> None:
    rows = torch.randn(len(letters().words), 8, generator=torch.Generator().manual_seed(0))
    suite = absorption_suite_of_rows(
        {"sae": linear(torch.eye(8))}, rows, letters(), bootstrap=0, seed=0, progress=QUIET
    )
    assert not suite.possible
    assert suite.reason is not None
    assert "letters reach" in suite.reason
    assert suite.dictionaries == {}


# --- structure and stability -----------------------------------------------------------------------------------------


def test_a_decoder_of_shared_parts_is_explained_and_random_directions_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(24, 32, generator=generator)
    made = torch.stack([parts[torch.randperm(24, generator=generator)[:2]].sum(0) for _ in range(256)])
    planted = meta_explained(unit_decoder(linear(made)), 64, 4, 200, 0)
    random = meta_explained(unit_decoder(linear(torch.randn(256, 32, generator=generator))), 64, 4, 200, 0)
    assert planted is not None
    assert random is not None
    assert planted > random + 0.15
    assert meta_explained(torch.ones(64, 4), 16, 4, 5, 0) is None


def test_twins_are_redundant_and_the_dead_are_counted() -> None:
    directions = torch.eye(32)[torch.arange(64) // 2]
    fired = torch.zeros(64, dtype=torch.int64)
    fired[:10] = 3
    suite = structure_suite(linear(directions), fired_F=fired, tokens=300, meta_steps=3, seed=0, progress=QUIET)
    assert suite.redundancy["sae"].above_09 == 1.0
    assert suite.redundancy["random"].above_09 == 0.0
    assert (suite.dead, suite.dead_density_bound) == (54, pytest.approx(0.01, rel=0.01))
    with pytest.raises(MismatchError, match="W_dec"):
        unit_decoder(SimpleNamespace(W_dec=torch.zeros(2, 3, 4)))


def test_the_same_features_in_another_order_are_all_found_again() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(96, 48, generator=generator)
    other = linear(3 * directions[torch.randperm(96, generator=generator)])
    alive = torch.arange(96) < 40
    suite = stability_suite(linear(directions), other, name="b", digest="d", alive_F=alive, seed=0, progress=QUIET)
    assert (suite.share_above_09, suite.alive_share_above_09, suite.pairs) == (1.0, 1.0, 96)
    assert suite.mean_cosine == pytest.approx(1.0, abs=1e-6)
    assert suite.chance_share_above_09 == 0.0
    apart = stability_suite(
        linear(directions), linear(torch.randn(96, 48, generator=generator)), name="b", digest="d", alive_F=None, seed=0,
        progress=QUIET,
    )  # fmt: skip
    assert apart.mean_cosine == pytest.approx(apart.chance_mean_cosine, abs=0.03)


def test_a_mean_that_two_decoders_share_is_no_feature_found_again() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.nn.functional.normalize(torch.randn(32, generator=generator), dim=0) * 4
    first, second = (linear(mean + 0.5 * torch.randn(96, 32, generator=generator)) for _ in range(2))
    alive = torch.arange(96) < 40
    suite = stability_suite(first, second, name="b", digest="d", alive_F=alive, seed=0, progress=QUIET)
    assert suite.share_above_07 > 0.9
    assert suite.chance_share_above_07 > 0.9
    assert suite.chance_alive_share_above_07 is not None
    assert suite.alive_share_above_07 == pytest.approx(suite.chance_alive_share_above_07, abs=0.1)
    assert suite.mean_cosine == pytest.approx(suite.chance_mean_cosine, abs=0.03)


def test_mutual_best_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuronmap.evaluation.suites.stability.MOST_ASSIGNED", 1)
    directions = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    wider = torch.cat([directions.flip(0), torch.randn(16, 32, generator=torch.Generator().manual_seed(1))])
    suite = stability_suite(
        linear(directions), linear(wider), name="b", digest="d", alive_F=None, seed=0, progress=QUIET
    )
    assert (suite.matching, suite.share_above_09, suite.pairs) == ("mutual best", 1.0, 64)
    assert suite.best_forth.above_09 == 1.0 > suite.best_back.above_09
    with pytest.raises(MismatchError, match="width"):
        stability_suite(
            linear(directions), linear(torch.eye(8)), name="b", digest="d", alive_F=None, seed=0, progress=QUIET
        )


# --- asking ----------------------------------------------------------------------------------------------------------


def test_suites_that_do_not_go_together_are_refused() -> None:
    assert check_suites(("structure", "core", "core"), against=False) == ("core", "structure")
    with pytest.raises(ConfigError, match="core, probing"):
        check_suites(("tpp",), against=False)
    with pytest.raises(ConfigError, match="second SAE"):
        check_suites(("stability",), against=False)
    with pytest.raises(ConfigError, match="second SAE"):
        check_suites(("core",), against=True)
    with pytest.raises(ConfigError, match="items = 3"):
        SuiteSettings(items=3)
