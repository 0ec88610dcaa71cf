"""Splits of a user's items."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from neuronmap.concepts import Item
from neuronmap.concepts.splitting import assign_splits

drawn = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12), st.integers(0, 20)), min_size=1, max_size=60)


def made(rows: list[tuple[str, int, int]]) -> list[Item]:
    return [
        Item(f"text {index}", label, (0, 4), f"c{cluster}", f"p{pair}", "all", "train")
        for index, (label, cluster, pair) in enumerate(rows)
    ]


@given(drawn, st.integers(1, 80), st.integers(0, 5))
def test_clusters_and_pairs_stay_whole(rows: list[tuple[str, int, int]], wanted: int, seed: int) -> None:
    items = made(rows)
    kept = assign_splits(items, wanted, seed)
    assert kept == assign_splits(items, wanted, seed)
    for name in ("cluster", "pair"):
        splits: dict[str, set[str]] = {}
        for item in kept:
            splits.setdefault(getattr(item, name), set()).add(item.split)
        assert all(len(found) == 1 for found in splits.values())
    sizes = Counter(item.cluster for item in items)
    assert all(sizes[cluster] == count for cluster, count in Counter(item.cluster for item in kept).items())
    if wanted >= len(items):
        assert [item.text for item in kept] == [item.text for item in items]


def test_every_split_has_its_share_of_every_label() -> None:
    items = made(
        [(label, 100 * (label == "b") + index, 100 * (label == "b") + index) for label in "ab" for index in range(40)]
    )
    assert Counter((item.label, item.split) for item in assign_splits(items, 80, 0)) == {
        (label, split): count for label in "ab" for split, count in (("train", 24), ("calibration", 6), ("test", 10))
    }
    assert len(assign_splits(items, 40, 0)) == 40
    first, second = ([item.split for item in assign_splits(items, 80, seed)] for seed in (0, 1))
    assert first != second
