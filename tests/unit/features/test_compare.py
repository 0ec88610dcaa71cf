"""Two SAEs compared: what was planted is found, chance is not, and what cannot be compared is refused with all reasons."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from neuronmap.activations import ArrayRows
from neuronmap.errors import InputError, MismatchError, MissingDependencyError
from neuronmap.features.comparing import firing as firing_module
from neuronmap.features.comparing.compare import CompareConfig, compare_saes
from neuronmap.features.comparing.firing import Runs, meet, read_firing, reader_of
from neuronmap.progress import SilentProgress, _SilentTask
from neuronmap.saes import SparseAutoencoder
from neuronmap.saes.metadata import BundleMetadata
from neuronmap.saes.relu import ReLUOptions, ReLUSAE
from neuronmap.saes.topk import TopKOptions, TopKSAE

D = 24
QUIET = SilentProgress()


def with_directions(directions_FD: torch.Tensor, *, k: int | None = 4, floor: float = 0.0) -> SparseAutoencoder:
    """An SAE that reads and writes given directions; ``floor`` is what a pre-activation has to exceed (ReLU only)."""
    F, width = directions_FD.shape
    unit_FD = directions_FD / directions_FD.norm(dim=1, keepdim=True)
    sae = ReLUSAE(width, F, ReLUOptions()) if k is None else TopKSAE(width, F, TopKOptions(k=k))
    with torch.no_grad():
        sae.W_dec.copy_(unit_FD)
        sae.W_enc.copy_(unit_FD.T)
        sae.b_enc.fill_(-floor)
    return sae


def random_sae(seed: int, features: int = 200, width: int = D, **options: Any) -> SparseAutoencoder:
    return with_directions(torch.randn(features, width, generator=torch.Generator().manual_seed(seed)), **options)


def permuted(sae: SparseAutoencoder, seed: int = 0) -> tuple[SparseAutoencoder, torch.Tensor]:
    """A copy with features in another order, and where each feature of the copy was."""
    order = torch.randperm(sae.d_sae, generator=torch.Generator().manual_seed(seed))
    return with_directions(sae.W_dec.detach()[order], k=sae.options.k), order  # type: ignore[attr-defined]


def some_rows(seed: int, rows: int = 2000, width: int = D) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def about(hook: str, component: str = "residual", model: str = "m", width: int = D) -> BundleMetadata:
    return BundleMetadata(
        model={"name": model, "model_digest": f"sha256:{model}"},
        hook={"name": hook, "layer": 0, "component": component, "width": width},
    )


def compare(a: SparseAutoencoder, b: SparseAutoencoder, **options: Any) -> Any:
    settings = {"null_draws": 3, **options.pop("config", {})}
    return compare_saes(a, b, progress=QUIET, config=CompareConfig(**settings), **options)


@pytest.mark.parametrize("with_rows", [False, True])
def test_a_permuted_copy_matches_completely(with_rows: bool) -> None:
    a = random_sae(0)
    b, order = permuted(a)
    result = compare(a, b, rows=some_rows(0) if with_rows else None, config={"least_firings": 1})
    for by in ["decoder", "activation"] if with_rows else ["decoder"]:
        found = result.matching(by)
        np.testing.assert_array_equal(order[found.best_A], np.arange(200))
        np.testing.assert_array_equal(found.best_B, order)
        np.testing.assert_array_equal(order[found.pairing.partner_A], np.arange(200))
        assert found.pairing.exact
        counts = result.counts(by)
        assert counts["shared"] == counts["one_to_one"] == counts["shared_at_0.9"] == 200
        assert counts["unique_a"] == counts["unique_b"] == counts["split"] == counts["merged"] == 0
        assert counts["shared_by_chance"] < 15
    assert result.agreement() == (1.0 if with_rows else None)


def test_the_order_of_the_two_only_swaps_the_sides() -> None:
    a, b = random_sae(0, 60), random_sae(1, 90)
    one, other = compare(a, b, config={"threshold": 0.5}), compare(b, a, config={"threshold": 0.5})
    assert {tuple(pair) for pair in one.matching().shared()} == {
        tuple(pair[::-1]) for pair in other.matching().shared()
    }
    assert [group.one for group in one.splits()] == [group.one for group in other.merges()]
    assert one.counts()["unique_a"] == other.counts()["unique_b"]


@pytest.fixture(scope="module")
def planted() -> tuple[SparseAutoencoder, SparseAutoencoder, torch.Tensor]:
    """A has features 0, 1, 2 and 3 .. 9; B has the first three each as two that take turns, and 3 .. 9 as they are."""
    axes = torch.eye(D)
    parents = torch.stack([axes[2 * i] + axes[2 * i + 1] for i in range(3)])
    a = with_directions(torch.cat([parents, axes[6:13]]), k=None, floor=0.5)
    b = with_directions(torch.cat([axes[:6], axes[6:13]]), k=None, floor=0.5)
    generator = torch.Generator().manual_seed(0)
    which = torch.randint(0, 13, (3000,), generator=generator)
    x = 2.0 * axes[which] + 0.05 * torch.randn(3000, D, generator=generator)
    return a, b, x


def test_planted_splits_are_found_with_their_coverage(planted: tuple[Any, Any, torch.Tensor]) -> None:
    a, b, x = planted
    result = compare(a, b, rows=x, config={"threshold": 0.4})
    for by in ("decoder", "activation"):
        groups = result.splits(by)
        assert [(group.one, sorted(group.many)) for group in groups] == [(i, [2 * i, 2 * i + 1]) for i in range(3)]
        for group in groups:
            assert group.counts
            assert group.coverage == pytest.approx(1.0, abs=0.02)
            assert group.precision == pytest.approx(1.0, abs=0.02)
            assert group.similarity == tuple(sorted(group.similarity, reverse=True))
        assert result.merges(by) == []
        counts = result.counts(by)
        assert (counts["split"], counts["split_into"], counts["merged"], counts["unique_a"]) == (3, 6, 0, 0)


def test_planted_merges_are_splits_the_other_way(planted: tuple[Any, Any, torch.Tensor]) -> None:
    a, b, x = planted
    result = compare(b, a, rows=x, config={"threshold": 0.4})
    assert [(group.one, sorted(group.many)) for group in result.merges()] == [(i, [2 * i, 2 * i + 1]) for i in range(3)]
    assert all(group.coverage == pytest.approx(1.0, abs=0.02) for group in result.merges())
    counts = result.counts()
    assert (counts["merged"], counts["merged_from"], counts["split"]) == (3, 6, 0)


def test_a_split_whose_parts_cover_too_little_does_not_count(planted: tuple[Any, Any, torch.Tensor]) -> None:
    a, b, x = planted
    silenced = with_directions(b.W_dec.detach(), k=None, floor=0.5)
    with torch.no_grad():
        silenced.b_enc[:2] = -2.04  # the two parts of feature 0 now fire on few of their rows
    result = compare(a, silenced, rows=x, config={"threshold": 0.4})
    first = result.splits("decoder")[0]
    assert first.one == 0
    assert first.coverage < 0.5
    assert not first.counts
    assert result.counts("decoder")["split"] == 2
    table = result.to_pandas("splits", by="decoder")
    assert table["counts"].tolist() == [False, True, True]
    assert table["features"].tolist()[1] in ([2, 3], [3, 2])


def test_unique_features_are_those_of_one_sae_only() -> None:
    directions = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(3))).Q
    result = compare(with_directions(directions[:12]), with_directions(directions[4:20]), config={"threshold": 0.5})
    assert result.matching().unique_a().tolist() == [0, 1, 2, 3]
    assert result.matching().unique_b().tolist() == list(range(8, 16))
    unique = result.to_pandas("unique")
    assert unique["sae"].tolist() == ["A"] * 4 + ["B"] * 8
    assert len(result.to_pandas("matches")) == 8


def test_unrelated_saes_are_within_what_chance_gives() -> None:
    over, shared, expected = [], [], []
    for seed in range(8):
        counts = compare(random_sae(2 * seed), random_sae(2 * seed + 1), config={"seed": seed}).counts()
        over += [1 - counts["unique_a"] / 200, 1 - counts["unique_b"] / 200]
        shared.append(counts["shared"])
        expected.append(counts["shared_by_chance"])
    assert 0.025 < np.mean(over) < 0.075
    assert np.mean(shared) == pytest.approx(np.mean(expected), abs=2.0)


def test_unrelated_rows_are_within_what_chance_gives() -> None:
    """Two models that have nothing to do with each other: rows meet by number, firing is independent."""
    over = []
    for seed in range(6):
        result = compare(
            random_sae(seed, 100), random_sae(seed, 100, 40), rows=some_rows(2 * seed), rows_b=some_rows(2 * seed + 1, 2000, 40),
            config={"seed": seed},
        )  # fmt: skip
        assert result.decoder is None
        over.append(1 - result.counts()["unique_a"] / result.counts()["compared_a"])
    assert 0.02 < np.mean(over) < 0.08


def test_the_same_seed_gives_the_same_result() -> None:
    a, b, x = random_sae(0), random_sae(1), some_rows(2)
    one, same, other = (compare(a, b, rows=x, config={"seed": seed}).to_dict() for seed in (0, 0, 1))
    assert one == same
    assert one["measures"]["decoder"]["null"] != other["measures"]["decoder"]["null"]
    assert one["measures"]["decoder"]["quantiles_a"] == other["measures"]["decoder"]["quantiles_a"]


@pytest.mark.parametrize("k", [4, None])
def test_codes_are_what_encode_gives_whatever_the_pieces(k: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    sae, x = random_sae(0, k=k), some_rows(0, 700)
    expected = sae.encode(x).detach().numpy()
    whole = read_firing(reader_of(x), [("", sae)], Runs(1), _SilentTask())[0]
    monkeypatch.setattr(firing_module, "_ROWS_AT_ONCE", 64)
    pieces = read_firing(reader_of(x.numpy()), [("", sae)], Runs(1), _SilentTask())[0]
    for rows in (whole, pieces):
        np.testing.assert_allclose(rows.code_NF.toarray(), np.maximum(expected, 0), atol=1e-5)
        assert rows.position.tolist() == list(range(700))


def test_a_part_of_the_rows_is_spread_over_all_of_them() -> None:
    sae = random_sae(0)
    rows = some_rows(0, 16 * 64 * 10)
    part = read_firing(reader_of(rows), [("", sae)], Runs(4), _SilentTask())[0]
    assert (np.unique(part.position // 1024)).tolist() == [0, 4, 8]
    result = compare(sae, permuted(sae)[0], rows=rows, config={"max_rows": 3000})
    assert result.rows["stride"] == 4
    assert result.rows["places"] == 3072
    assert "one run of 16 contexts in 4" in result.summary()


@dataclass
class Block:
    index: int
    sequence_B: np.ndarray
    position_B: np.ndarray
    x_BD: torch.Tensor


class Tokens:
    """40 contexts of 8 tokens in documents of 50 tokens; the first of each context is a separator."""

    num_contexts, context_length, digest = 40, 8, "sha256:tokens"

    def contexts(self, start: int, stop: int) -> Any:
        flat = np.arange(320, dtype=np.int32).reshape(40, 8)[start:stop]
        batch = type("Batch", (), {})()
        batch.document, batch.position = flat // 50, flat % 50
        batch.document[:, 0] = batch.position[:, 0] = -1
        return batch


class PassRows:
    """Rows of two hooks, as a feature pass gives them; the second hook has lost some rows to its mask."""

    def __init__(self, first: torch.Tensor, second: torch.Tensor, lost: set[int]) -> None:
        self.tokens, self.hooks, self.asked = Tokens(), ("first", "second"), []
        self._x, self._lost = {"first": first, "second": second}, {"first": set(), "second": lost}

    def blocks(self, todo: Any, contexts_per_block: int) -> Iterator[dict[str, Block]]:
        for index in todo:
            self.asked.append(index)
            low, high = index * contexts_per_block * 8, min((index + 1) * contexts_per_block * 8, 320)
            result = {}
            for hook in self.hooks:
                kept = np.array([row for row in range(low, high) if row not in self._lost[hook]])
                result[hook] = Block(
                    index, (kept // 8).astype(np.uint32), (kept % 8).astype(np.uint16), self._x[hook][kept]
                )
            yield result


def test_rows_of_two_hooks_meet_at_the_same_tokens() -> None:
    x, sae = some_rows(0, 320), random_sae(0)
    other, order = permuted(sae)
    rows = PassRows(x, x, lost={3, 77, 200})
    one, two = read_firing(reader_of(rows), [("first", sae), ("second", other)], Runs(1), _SilentTask())
    assert rows.asked == [0, 1, 2], "one pass for both"
    row_a, row_b = meet(one, two)
    assert len(row_a) == 320 - 40 - 2, "200 is a separator, which belongs to no document"
    np.testing.assert_array_equal(one.key[row_a], two.key[row_b])
    a, b = one.code_NF[row_a].toarray(), two.code_NF[row_b].toarray()
    np.testing.assert_allclose(a[:, order.numpy()], b, atol=1e-5)


def test_two_layers_are_compared_by_firing_first() -> None:
    a = random_sae(0)
    b, _ = permuted(a)
    x = some_rows(0, 320)
    result = compare(a, b, rows=PassRows(x, x, set()), metadata_a=about("first"), metadata_b=about("second"),
                     config={"least_firings": 3})  # fmt: skip
    assert result.primary == "activation"
    assert result.counts("decoder")["shared"] == 200
    assert any("two layers of one residual stream" in note for note in result.notes)
    with pytest.raises(MismatchError, match=r"A reads first_mlp and its rows|A reads hook first_mlp"):
        compare(a, b, rows=PassRows(x, x, set()), metadata_a=about("first_mlp"), metadata_b=about("second"))


def test_hooks_that_are_not_of_one_stream_have_no_decoder_matching() -> None:
    a, x = random_sae(0), some_rows(0, 320)
    result = compare(a, a, rows=PassRows(x, x, set()), config={"least_firings": 3},
                     metadata_a=about("first", "mlp"), metadata_b=about("second", "attention"))  # fmt: skip
    assert result.decoder is None
    assert result.primary == "activation"
    assert result.notes[0] == "Decoders were not compared: A reads first and B reads second."
    with pytest.raises(InputError, match="not compared by decoder: they have no space in common"):
        result.matching("decoder")


@pytest.mark.parametrize(
    ("options", "reasons"),
    [
        ({}, ["width 24 and B of 32"]),
        (
            {"metadata_a": about("x"), "metadata_b": about("y", "mlp", "n", 32)},
            ["width 24 and B of 32", "model m and B reads n", "A reads x and B reads y", "rows=..., rows_b=..."],
        ),
        ({"rows": some_rows(0)}, ["B reads activations of width 32 and its rows have 24"]),
        (
            {"rows": some_rows(0, 500, 7), "rows_b": some_rows(0, 600, 9)},
            ["A reads activations of width 24 and its rows have 7", "its rows have 9", "500 and 600 rows"],
        ),
        (
            {"rows": PassRows(some_rows(0, 320), some_rows(0, 320), set())},
            ["A reads an unknown hook", "are of first, second"],
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_with_all_reasons(options: dict[str, Any], reasons: list[str]) -> None:
    with pytest.raises(MismatchError) as caught:
        compare(random_sae(0), random_sae(1, width=32), **options)
    assert [reason for reason in reasons if reason not in str(caught.value)] == []


def test_bad_input_has_its_message() -> None:
    a = random_sae(0)
    with pytest.raises(InputError, match="rows_b or text was given without rows"):
        compare(a, a, rows_b=some_rows(0))
    with pytest.raises(InputError, match="got str"):
        compare(a, a, rows="store")
    with pytest.raises(InputError, match="5 common places"):
        compare(a, a, rows=some_rows(0, 5))
    with pytest.raises(InputError, match="fire at 1000 places or more"):
        compare(a, a, rows=some_rows(0, 500), config={"least_firings": 1000})
    with pytest.raises(InputError, match="no table 'rows'"):
        compare(a, a).to_pandas("rows")
    with pytest.raises(InputError, match="not compared by activation: there were no rows"):
        compare(a, a).counts("activation")


def test_a_threshold_below_chance_is_said_to_be() -> None:
    result = compare(random_sae(0), random_sae(1), config={"threshold": 0.1})
    assert any("below what chance gives" in note for note in result.notes)


def test_tables_and_json_say_the_same() -> None:
    a = random_sae(0)
    b, order = permuted(a)
    result = compare(a, b, rows=ArrayRows(some_rows(0)), names=("<one>", "two"))
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    decoder = plain["measures"]["decoder"]
    matches = result.to_pandas("matches")
    assert len(matches) == 200
    assert matches["similarity"].is_monotonic_decreasing
    assert list(matches.columns) == ["feature_a", "feature_b", "similarity", "mutual", "activation_correlation"]
    assert {(i, j) for i, j, _ in decoder["one_to_one"]} == set(
        zip(matches["feature_a"], matches["feature_b"], strict=True)
    )
    best = result.to_pandas("best_b")
    np.testing.assert_array_equal(best["feature_a"], order)
    assert best["mutual"].all()
    assert decoder["counts"] == result.counts("decoder")
    by_firing = result.to_pandas("best_a", by="activation")
    assert by_firing["decoder_cosine"].to_numpy() == pytest.approx(1.0, abs=1e-5)
    assert {"<one>", "two"} == {side["name"] for side in plain["sides"]}


def test_it_shows_itself() -> None:
    result = compare(random_sae(0), random_sae(1, 300), rows=some_rows(0), names=("<one>", "two"))
    text = result.summary()
    for expected in (
        "<one> (topk, 200 features) against two (topk, 300 features)",
        "By decoder cosine (primary)",
        "by chance",
    ):
        assert expected in text
    page = result._repr_html_()
    assert "&lt;one&gt;" in page
    assert "<one>" not in page
    assert repr(result).startswith("<SAEComparison <one> (topk")


def test_the_plot_shows_both_saes_the_null_and_the_threshold() -> None:
    result = compare(random_sae(0), random_sae(1, 300), rows=some_rows(0))
    figure = result.plot()
    assert [axis.get_xlabel() for axis in figure.axes] == [
        "best match, decoder cosine", "best match, activation correlation",
    ]  # fmt: skip
    for axis, by in zip(figure.axes, ("decoder", "activation"), strict=True):
        labels = axis.get_legend_handles_labels()[1]
        assert set(labels) == {"by chance", "A", "B", f"threshold {result.matching(by).threshold:.2f}"}
        (line,) = axis.lines
        assert line.get_xdata()[0] == pytest.approx(result.matching(by).threshold)
        heights = [patch.get_height() for patch in axis.containers[0]]
        assert math.isclose(sum(heights), 1.0, rel_tol=1e-6), "shares of features, not counts"
    figure.canvas.draw()


def test_a_plot_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuronmap.features.comparing.comparison.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"neuronmap\[plots\]"):
        compare(random_sae(0), random_sae(1)).plot()


@pytest.fixture(scope="module")
def stores(tiny_llama: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The same text at two layers of a small model; each store has dropped outliers of its own."""
    from neuronmap.activations import MaskConfig, harvest
    from neuronmap.corpora import tokenize
    from neuronmap.models import resolve_hook

    texts = [
        f"In the winter of {year} the river froze, and {year % 17} children walked to school." for year in range(150)
    ]
    tokens = tokenize(texts, tiny_llama.tokenizer, context_length=16, part="all", cache=False, progress=QUIET)
    hooks = [resolve_hook(tiny_llama, layer, "residual") for layer in (0, 2)]
    found = harvest(tiny_llama, tokens, hooks, root=tmp_path_factory.mktemp("stores"), dtype="float32",
                    mask=MaskConfig(outlier_factor=1.05), progress=QUIET)  # fmt: skip
    return [found[hook.name] for hook in hooks]


def test_stores_of_two_layers_meet_at_the_same_tokens(stores: list[Any]) -> None:
    one, other = stores
    assert one.num_rows != other.num_rows
    a, b = random_sae(0, 80, 32), random_sae(1, 60, 32)
    result = compare(a, b, rows=one, rows_b=other)
    assert result.primary == "activation"
    assert result.decoder is not None, "both are of one residual stream, as the stores know"
    dense = []
    for sae, store in ((a, one), (b, other)):
        origin = store.provenance(0, store.num_rows)
        f = sae.encode(store.read(0, store.num_rows)).detach().numpy()
        dense.append(
            {key: row for *key_, row in zip(origin.document, origin.position, f, strict=True) for key in [tuple(key_)]}
        )
    common = sorted(key for key in dense[0] if key in dense[1] and key[0] >= 0)
    assert result.rows["places"] == len(common) < min(one.num_rows, other.num_rows)
    f_a, f_b = (np.stack([rows[key] for key in common]) for rows in dense)
    i, j = np.flatnonzero(result.activation.usable_A)[[0, 5]], np.flatnonzero(result.activation.usable_B)[[3, 4]]
    expected = [np.corrcoef(f_a[:, p], f_b[:, q])[0, 1] for p, q in zip(i, j, strict=True)]
    np.testing.assert_allclose(result.firing.pairs(i, j), expected, atol=1e-5)


def test_a_store_of_another_hook_or_model_is_refused(stores: list[Any]) -> None:
    a = random_sae(0, 80, 32)
    with pytest.raises(MismatchError) as caught:
        compare(a, a, rows=stores[0], metadata_a=about("mine", width=32), metadata_b=about("mine", width=32))
    for reason in (
        f"A reads mine and its rows are of {stores[0].hook['name']}",
        "B reads mine",
        "A reads m and its rows are of tiny-llama",
    ):
        assert reason in str(caught.value)
    with pytest.raises(MismatchError, match="an array without origin"):
        compare(a, a, rows=stores[0], rows_b=stores[0].read(0, 100))
