"""The feature pass against a plain account of the same dense activations, by shards, stopped and continued."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pass_parts import SMALL, MadeRows, MadeTokens, Notes, plain_draw, plain_features, small_sae, state_bytes

from neuronmap.errors import ConfigError, DamagedError, InputError, Interrupted, MismatchError
from neuronmap.features.collect.analyze import forget_pass, run_pass, shard_blocks, weights_digest
from neuronmap.features.collect.codes import encode_block
from neuronmap.features.collect.layout import fixed_sum
from neuronmap.features.collect.rows import grid
from neuronmap.features.collect.state import FeatureState
from neuronmap.saes import SparseAutoencoder
from neuronmap.saes.workspace import Workspace

ARCHITECTURES = ("topk", "batchtopk", "relu", "jumprelu")
QUIET = Notes()


def analyse(sae: SparseAutoencoder, folder: Path, hook: str = "wide", **options: Any) -> FeatureState:
    """One SAE on the made rows."""
    given: dict[str, Any] = {"rows": MadeRows(), "config": SMALL, "progress": QUIET, **options}
    return run_pass({"it": sae}, hook_of={"it": hook}, folder=folder, **given)["it"]


def dense(sae: SparseAutoencoder, rows: MadeRows, hook: str, kernels: str = "auto") -> np.ndarray:
    """float32 [C, T, F]: activations of every row, blocks as in the pass; 0 where there is no row."""
    tokens = rows.tokens
    f = np.zeros((tokens.num_contexts, tokens.context_length, sae.d_sae), np.float32)
    contexts_per_block, blocks = grid(tokens, SMALL.block_tokens)
    for found in rows.blocks(range(blocks), contexts_per_block):
        block = found[hook]
        entries = encode_block(sae, block.x_BD, Workspace(kernels=kernels), rows.unit(hook), "test")
        at = (block.sequence_B[entries.row_N], block.position_B[entries.row_N].astype(int), entries.feature_N)
        f[at] = entries.value_N
        torch.testing.assert_close(
            torch.from_numpy(f[block.sequence_B, block.position_B.astype(int)]), sae.encode(block.x_BD)
        )
    return f


@pytest.mark.parametrize("hook", ["plain", "wide"])
@pytest.mark.parametrize("kernels", ["auto", "torch"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_that_is_kept_is_that_of_a_plain_account(
    architecture: str, kernels: str, hook: str, tmp_path: Path
) -> None:
    rows = MadeRows()
    sae = small_sae(architecture, rows.width(hook))
    state = analyse(sae, tmp_path, hook, rows=rows, kernels=kernels)
    f = dense(sae, rows, hook, kernels)
    unit, arrays = rows.unit(hook), state.features
    expected = plain_features(f, rows.row, rows.tokens.input_ids, SMALL, unit)
    assert sum(e["firings"] for e in expected) > 100
    assert arrays["firings"].tolist() == [e["firings"] for e in expected]
    np.testing.assert_allclose(fixed_sum(arrays["sum"]), [e["sum"] for e in expected], rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(fixed_sum(arrays["square"]), [e["square"] for e in expected], rtol=1e-12, atol=1e-9)
    assert arrays["max"].tolist() == [e["max"] for e in expected]
    assert arrays["histogram"].tolist() == [e["histogram"] for e in expected]
    assert arrays["positions"].tolist() == [e["positions"] for e in expected]
    for feature, e in enumerate(expected):
        assert arrays["top_count"][feature] == len(e["top"])
        assert plain_items(arrays["top"][feature]) == padded(e["top"], SMALL.top_examples)
        for b in range(32):
            assert arrays["bin_count"][feature, b] == len(e["bins"][b])
            assert plain_items(arrays["bins"][feature, b]) == padded(e["bins"][b], SMALL.bin_examples)
        assert arrays["drawn_count"][feature] == len(e["drawn"])
        assert plain_items(arrays["drawn"][feature]) == padded(e["drawn"], SMALL.drawn_examples)
        assert arrays["sample_count"][feature] == len(e["sample"])
        assert arrays["sample"][feature].tolist() == [*e["sample"], *[(0, 0, 0, 0.0)] * (8 - len(e["sample"]))]


def plain_items(items: np.ndarray) -> list[tuple[Any, ...]]:
    return [
        (int(i["order"]), i["value"], int(i["sequence"]), int(i["position"]), i["window"].astype(float).tolist())
        for i in items
    ]


def padded(items: list[Any], count: int) -> list[Any]:
    return [*items, *[(0, 0.0, 0, 0, [0.0] * SMALL.window)] * (count - len(items))]


@pytest.mark.parametrize("architecture", ["topk", "relu"])
def test_figures_over_all_rows(architecture: str, tmp_path: Path) -> None:
    rows = MadeRows()
    sae = small_sae(architecture, rows.width("wide"))
    state = analyse(sae, tmp_path, rows=rows)
    f, row = dense(sae, rows, "wide"), rows.row
    active = (f > 0).sum(2)
    assert state.rows == row.sum()
    assert state.complete
    assert state.l0_histogram.tolist() == [int((active[row] == n).sum()) for n in range(1025)]
    assert state.l0_sum_T.tolist() == [int(active[:, t].sum()) for t in range(12)]
    assert state.rows_T.tolist() == row.sum(0).tolist()
    assert state.token_count_V.tolist() == [int((rows.tokens.input_ids[row] == v).sum()) for v in range(7)]
    assert np.array_equal(np.unpackbits(state.kept, axis=1)[:, :12], row)


def test_codes_of_sampled_contexts(tmp_path: Path) -> None:
    rows = MadeRows()
    sae = small_sae("topk", rows.width("wide"))
    config = SMALL.updated(sample_tokens=128)
    sample = analyse(sae, tmp_path, rows=rows, config=config).sample
    f, C = dense(sae, rows, "wide"), rows.tokens.num_contexts
    chosen = sorted(sorted(range(C), key=lambda c: (plain_draw(5, -1, c, 0), c))[: -(-128 // 12)])
    addresses = [(c, t) for c in chosen for t in range(12) if rows.row[c, t]]
    assert list(zip(sample.sequence_N.tolist(), sample.position_N.tolist(), strict=True)) == addresses
    assert len(chosen) < C
    x, mean = rows.x["wide"].astype(np.float32).astype(float), rows.mean("wide").numpy()
    for n, (c, t) in enumerate(addresses):
        part = slice(*sample.offset_N[n : n + 2])
        features = np.flatnonzero(f[c, t])
        assert sample.feature_E[part].tolist() == features.tolist()
        assert np.array_equal(sample.value_E[part], (f[c, t, features] / 256).astype(np.float16))
        xhat = sae.decode(torch.from_numpy(f[c, t])).detach().double().numpy()
        assert sample.error_N[n] == pytest.approx(((x[c, t] - xhat) ** 2).sum(), rel=1e-4)
        assert sample.energy_N[n] == pytest.approx(((x[c, t] - mean) ** 2).sum(), rel=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shards", [2, 3])
def test_shards_merge_in_any_order_to_the_bytes_of_the_whole(architecture: str, shards: int, tmp_path: Path) -> None:
    rows = MadeRows(empty=range(3))  # the first block has no rows: every shard must find the second
    sae = small_sae(architecture, rows.width("plain"))
    whole = state_bytes(analyse(sae, tmp_path / "whole", "plain", rows=rows))
    parts = [
        analyse(sae, tmp_path / str(i), "plain", rows=MadeRows(empty=range(3)), shard=(i, shards))
        for i in range(shards)
    ]
    assert not any(part.complete for part in parts)
    for order in itertools.permutations(parts):
        assert state_bytes(FeatureState.merge(order)) == whole
    loaded = [FeatureState.load(tmp_path / str(i) / "0") for i in range(shards)]
    assert state_bytes(FeatureState.merge([FeatureState.merge(loaded[:1]), FeatureState.merge(loaded[1:])])) == whole


def test_more_shards_than_blocks(tmp_path: Path) -> None:
    rows = MadeRows()
    sae = small_sae("topk", rows.width("plain"))
    parts = [analyse(sae, tmp_path / str(i), "plain", shard=(i, 7)) for i in range(7)]
    whole = analyse(sae, tmp_path / "whole", "plain")
    assert state_bytes(FeatureState.merge(parts)) == state_bytes(whole)


@pytest.mark.parametrize("blocks", [1, 2, 5, 12])
@pytest.mark.parametrize("shards", [1, 2, 5, 7])
def test_shards_cover_the_grid_once(blocks: int, shards: int) -> None:
    cut = [list(shard_blocks(blocks, (i, shards))) for i in range(shards)]
    assert list(itertools.chain(*cut)) == list(range(blocks))
    assert all(b * shards // blocks == i for i, part in enumerate(cut) for b in part)


def test_the_number_of_sampled_contexts_follows_l0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuronmap.features.collect.sampling.MOST_ENTRIES", 5 * 12 * 4)
    rows = MadeRows()
    sae = small_sae("topk", rows.width("plain"))
    parts = [analyse(sae, tmp_path / str(i), "plain", shard=(i, 2)) for i in range(2)]
    whole = analyse(sae, tmp_path / "whole", "plain")
    assert 4 <= whole.facts["sample_contexts"] < 11
    assert len(set(whole.sample.sequence_N.tolist())) == whole.facts["sample_contexts"]
    assert state_bytes(FeatureState.merge(parts[::-1])) == state_bytes(whole)


def test_several_saes_read_the_rows_once(tmp_path: Path) -> None:
    rows = MadeRows()
    saes = {"a": small_sae("topk", 12), "b": small_sae("relu", 8), "c": small_sae("jumprelu", 12, seed=3)}
    hook_of = {"a": "wide", "b": "plain", "c": "wide"}
    states = run_pass(saes, rows, hook_of=hook_of, config=SMALL, folder=tmp_path / "all", progress=QUIET)
    assert rows.read == list(range(5))
    assert list(states) == ["a", "b", "c"]
    for name, sae in saes.items():
        assert state_bytes(states[name]) == state_bytes(analyse(sae, tmp_path / name, hook_of[name]))


@pytest.mark.parametrize("stop_at", [1, 3])
def test_interrupted_and_continued_is_the_same(stop_at: int, tmp_path: Path) -> None:
    sae = small_sae("topk", 12)
    whole = state_bytes(analyse(sae, tmp_path / "whole"))
    with pytest.raises(Interrupted, match=f"after {stop_at} of 5 blocks") as stopped:
        analyse(sae, tmp_path / "cut", progress=Notes(stop_at))
    assert "same call" in stopped.value.hint
    rows, notes = MadeRows(), Notes()
    assert state_bytes(analyse(sae, tmp_path / "cut", rows=rows, progress=notes)) == whole
    assert rows.read == list(range(stop_at, 5))
    assert f"{stop_at} of 5 blocks are done" in notes.lines[0]
    again = MadeRows()
    assert state_bytes(analyse(sae, tmp_path / "cut", rows=again)) == whole
    assert again.read == []


def test_a_signal_saves_and_stops(tmp_path: Path) -> None:
    class Signalling(MadeRows):
        def blocks(self, todo: Any, contexts_per_block: int) -> Any:
            for at, block in enumerate(super().blocks(todo, contexts_per_block)):
                if at == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield block

    sae = small_sae("topk", 12)
    with pytest.raises(Interrupted, match="SIGTERM after 3 of 5"):
        analyse(sae, tmp_path / "cut", rows=Signalling())
    assert FeatureState.load(tmp_path / "cut" / "0").done_G.tolist() == [True, True, True, False, False]
    assert state_bytes(analyse(sae, tmp_path / "cut")) == state_bytes(analyse(sae, tmp_path / "whole"))


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from pass_parts import SMALL, MadeRows, Notes, small_sae
from neuronmap.features.collect import analyze

class Dying(MadeRows):
    def blocks(self, todo, contexts_per_block):
        for at, block in enumerate(super().blocks(todo, contexts_per_block)):
            if at == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            yield block

analyze._SAVE_EVERY_S, analyze._SAVE_SHARE = 0.0, float("inf")  # after every block
saes = {{"a": small_sae("topk", 12), "b": small_sae("relu", 8)}}
analyze.run_pass(saes, Dying(), hook_of={{"a": "wide", "b": "plain"}}, config=SMALL, folder=Path(sys.argv[1]), progress=Notes())
"""


def test_killed_and_continued_is_the_same(tmp_path: Path) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent))
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path / "cut")], check=False)
    assert died.returncode == -signal.SIGKILL
    saes, hook_of = {"a": small_sae("topk", 12), "b": small_sae("relu", 8)}, {"a": "wide", "b": "plain"}
    rows = MadeRows()
    states = {
        folder: run_pass(saes, source, hook_of=hook_of, config=SMALL, folder=tmp_path / folder, progress=QUIET)
        for folder, source in (("cut", rows), ("whole", MadeRows()))
    }
    assert rows.read == [3, 4]
    assert not list(tmp_path.rglob(".staging-*"))
    assert len(list((tmp_path / "cut" / "0").iterdir())) == 2  # what was saved before is gone
    for name in saes:
        assert state_bytes(states["cut"][name]) == state_bytes(states["whole"][name])


def test_a_kill_between_two_states_is_made_good(tmp_path: Path) -> None:
    saes, hook_of = {"a": small_sae("topk", 12), "b": small_sae("relu", 8)}, {"a": "wide", "b": "plain"}
    options: dict[str, Any] = {"hook_of": hook_of, "config": SMALL, "folder": tmp_path}
    with pytest.raises(Interrupted):
        run_pass(saes, MadeRows(), **options, progress=Notes(2))
    (tmp_path / "1" / "state.json").unlink()  # as if the process had died before its first save of the second
    states = run_pass(saes, MadeRows(), **options, progress=QUIET)
    for name, sae in saes.items():
        assert state_bytes(states[name]) == state_bytes(analyse(sae, tmp_path / f"of-{name}", hook_of[name]))


def test_a_folder_of_another_pass_is_refused(tmp_path: Path) -> None:
    sae = small_sae("topk", 12)
    analyse(sae, tmp_path)
    with pytest.raises(MismatchError, match=r"config\.top_examples is 3 and 4"):
        analyse(sae, tmp_path, config=SMALL.updated(top_examples=4))
    with pytest.raises(MismatchError, match="sae_digest"):
        analyse(small_sae("topk", 12, seed=1), tmp_path)
    with pytest.raises(MismatchError, match=r"shard is \[0, 1\] and \[0, 2\]"):
        analyse(sae, tmp_path, shard=(0, 2))


def test_forgetting_a_pass_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    sae = small_sae("topk", MadeRows().width("wide"))
    folder = tmp_path / "work"
    analyse(sae, folder)
    (folder / "thesis.tex").write_text("all of it")
    (folder / "chapters").mkdir()
    forget_pass(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["chapters", "thesis.tex"]
    forget_pass(folder)  # no pass is there
    assert (folder / "thesis.tex").read_text() == "all of it"
    analyse(sae, tmp_path / "own")
    forget_pass(tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_widths_that_do_not_fit_are_all_listed(tmp_path: Path) -> None:
    saes = {"a": small_sae("topk", 12), "b": small_sae("relu", 9), "c": small_sae("relu", 10)}
    with pytest.raises(MismatchError, match=r"'b' takes .* 9, .* 'c' takes .* 10, the rows of wide have 12"):
        run_pass(saes, MadeRows(), hook_of=dict.fromkeys(saes, "wide"), folder=tmp_path, progress=QUIET)


def test_bad_input_has_its_message(tmp_path: Path) -> None:
    sae = small_sae("topk", 12)
    with pytest.raises(ConfigError, match=r"shard = \(2, 2\)"):
        analyse(sae, tmp_path, shard=(2, 2))
    with pytest.raises(InputError, match="'elsewhere', of which there are no rows"):
        analyse(sae, tmp_path, hook="elsewhere")
    rows = MadeRows()
    rows.x["wide"][7, 5] = np.nan
    rows.row[7, 5] = True
    with pytest.raises(InputError, match=r"1 of \d+ rows of contexts 6 to 8 at wide hold NaN"):
        analyse(sae, tmp_path / "rows", rows=rows)
    with torch.no_grad():
        sae.W_dec[3, 1] = torch.inf
    with pytest.raises(InputError, match="weights of SAE 'it' hold NaN"):
        analyse(sae, tmp_path / "weights")
    with pytest.raises(InputError, match="No SAE"):
        run_pass({}, MadeRows(), hook_of={}, folder=tmp_path)


def test_activations_beyond_all_measure_are_refused(tmp_path: Path) -> None:
    sae = small_sae("relu", 12)
    with torch.no_grad():
        sae.W_enc.mul_(1e12)
    with pytest.raises(InputError, match="made for activations of another scale"):
        analyse(sae, tmp_path)


def test_states_that_do_not_belong_together_do_not_merge(tmp_path: Path) -> None:
    sae = small_sae("topk", 12)
    one, two = (analyse(sae, tmp_path / str(i), shard=(i, 2)) for i in range(2))
    other = analyse(small_sae("topk", 12, seed=1), tmp_path / "other", shard=(1, 2))
    with pytest.raises(MismatchError, match="sae_digest is"):
        FeatureState.merge([one, other])
    with pytest.raises(MismatchError, match="blocks are in more than one"):
        FeatureState.merge([one, two, one])
    two.facts["key"] = "sha256:of another layout"
    with pytest.raises(MismatchError, match="different versions"):
        FeatureState.merge([one, two])
    with pytest.raises(InputError, match="no state"):
        FeatureState.merge([])


@pytest.mark.parametrize("name", ["histogram", "top", "sample.value_E", "kept"])
def test_a_damaged_state_is_refused(name: str, tmp_path: Path) -> None:
    analyse(small_sae("topk", 12), tmp_path)
    folder = tmp_path / "0"
    (file,) = folder.glob(f"arrays-*/{name}.npy")
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamagedError, match="was changed"):
        FeatureState.load(folder)
    file.write_bytes(data[:50])
    with pytest.raises(DamagedError, match="cannot be read"):
        FeatureState.load(folder)
    file.unlink()
    with pytest.raises(DamagedError, match="missing"):
        FeatureState.load(folder)


def test_a_changed_figure_is_noticed(tmp_path: Path) -> None:
    analyse(small_sae("topk", 12), tmp_path)
    file = tmp_path / "0" / "state.json"
    file.write_text(file.read_text().replace('"rows": 1', '"rows": 2'))
    with pytest.raises(DamagedError, match="its digest differs"):
        FeatureState.load(tmp_path / "0")
    with pytest.raises(InputError, match="no state"):
        FeatureState.load(tmp_path / "nowhere")


def test_the_same_weights_have_the_same_digest() -> None:
    assert weights_digest(small_sae("topk", 12)) == weights_digest(small_sae("topk", 12))
    assert weights_digest(small_sae("topk", 12)) != weights_digest(small_sae("topk", 12, seed=1))


def test_long_contexts_are_refused(tmp_path: Path) -> None:
    rows = MadeRows(MadeTokens(2, 70_000))
    with pytest.raises(InputError, match="70,000 tokens"):
        analyse(small_sae("topk", 12), tmp_path, rows=rows)
