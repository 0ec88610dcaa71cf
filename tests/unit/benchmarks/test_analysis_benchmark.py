"""The analysis benchmark's own arithmetic, that its inputs are one thing in two forms, and that a timed pass is a whole one."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import analysis
import analysis_inputs
import analysis_neuronmap
import analysis_report
from analysis_cells import FULL, OURS, PEER, QUICK, Cell, Sizes
from analysis_inputs import FirstContexts, from_rows, grid, open_rows, prepare_sae
from analysis_neuronmap import OurAnalysis, parts_of_pass
from analysis_plot import draw, series_of
from analysis_report import agreement, lead, markdown, whole
from analysis_worker import AnalysisWorker
from neuronmap.activations import harvest
from neuronmap.corpora import tokenize
from neuronmap.errors import InputError
from neuronmap.features.collect.rows import StoredRows
from neuronmap.models import LanguageModel, resolve_hook
from neuronmap.paths import write_json
from neuronmap.progress import SilentProgress

CONTEXTS, CONTEXT_LENGTH = 96, 16


def sample(step: float, *gemm: float) -> dict[str, Any]:
    return {"before": list(gemm[:2]), "step": step, "after": list(gemm[2:])}


def ours(step: float = 1.2, features: int = 4096, contexts: int = 32, **described: Any) -> dict[str, Any]:
    """An entry of ours: passes of ``step`` seconds over 4,096 rows, while a product of 4,096 rows takes a second."""
    cell = Cell(OURS, "", "topk", "rows", features, contexts)
    seconds = {"weights": 2.0, "finish": 3.0}
    return {
        "cell": asdict(cell), "label": cell.label, "note": "", "samples": [sample(step, 1, 1, 1, 1)] * 3,
        "described": {"rows": contexts * 128, "seconds": seconds, "bytes_a_feature": 2500.0, "files": {"a.parquet": 8192}} | described,
        "parts": {"stopwatch": {"G": 1.0, "step": step, "read": step / 4, "rest": step * 3 / 4}},
    }  # fmt: skip


def peer(step: float = 3.0, features: int = 4096, contexts: int = 32) -> dict[str, Any]:
    """An entry of the peer: feature batches of ``step`` seconds, of which there are 16."""
    cell = Cell(PEER, "defaults", "topk", "rows", features, contexts)
    described = {
        "rows": contexts * 128, "batches": features // 256, "features_a_batch": 256, "write_s_a_batch": 1.0, "bytes_a_feature": 38_000.0,
    }  # fmt: skip
    parts = {"stopwatch": {"G": 1.0, "step": step, "logits": step / 4, "rest": step * 3 / 4}}
    return {
        "cell": asdict(cell), "label": cell.label, "note": "", "samples": [sample(step, 1, 1, 1, 1)] * 4, "described": described,
        "parts": parts, "agreement": agreement([1.0, 2.0], [1.0, 2.5]),
    }  # fmt: skip


def record(**changes: Any) -> dict[str, Any]:
    return {
        "date": "2030-01-01", "quick": False, "complete": True, "commit": "abc", "versions": {"torch (ours)": "2"},
        "machine": {"cpu": "X", "cores": 2, "threads": 2, "memory_gib": 8.0, "system": "Y"},
        "groups": [{"cells": [ours(), peer()]}], "growth": {}, "memory": [], "million": None,
    } | changes  # fmt: skip


# --- figures ----------------------------------------------------------------------------------------------------------


def test_a_pass_is_counted_in_products_over_its_own_rows() -> None:
    """Twice the rows at twice the time are the same number of products."""
    one, two = whole(ours(1.2)), whole(ours(2.4, contexts=64))
    assert one is not None
    assert two is not None
    assert one.products == pytest.approx(1.2)
    assert two.products == pytest.approx(1.2)
    assert two.product_s == pytest.approx(2.0)
    assert one.rate == pytest.approx(4096 / 1.2)


def test_the_peers_batches_are_scaled_to_all_features() -> None:
    """16 batches of 3 products each, against 1.2: 40 times."""
    found, mine = whole(peer(3.0)), whole(ours(1.2))
    assert found is not None
    assert mine is not None
    assert found.products == pytest.approx(48.0)
    assert found.seconds == pytest.approx(48.0)
    assert lead(mine, found) == pytest.approx(40.0)


def test_what_could_not_be_measured_has_no_figure() -> None:
    assert whole({**peer(), "samples": [], "note": "failed: reason"}) is None


def test_agreement_is_within_a_ten_thousandth() -> None:
    assert agreement([1.0, 0.0, 5.0, 0.0], [1.00005, 0.0, 5.01, 1.0]) == {"features": 4, "same": 2, "silent": 1}


def test_the_report_says_what_was_met_and_what_was_scaled_up() -> None:
    report = markdown(record(), None)
    assert "**1.20** [1.20, 1.20] | 1.3: met | 3,413 | 1.2 | 3 passes" in report
    assert "| 4 of 16 batches of 256, scaled up | 40 (goal 25: met) | 30 (goal 25: met) | 38.0 |" in report
    assert "the same as ours for 1 of 2 features" in report
    assert "STOPPED" not in report
    # whole analyses: 48 s of the peer against 1.2 + 2 + 3
    assert "48 s, 7.7 times ours (16 s more for its files)" in report


def test_the_report_says_what_was_missed() -> None:
    report = markdown(record(groups=[{"cells": [ours(1.4), peer(2.0)]}], complete=False), None)
    assert "1.3: MISSED" in report
    assert "23 (goal 25: MISSED)" in report
    assert "STOPPED" in report


def test_a_peer_that_failed_is_named_with_its_reason() -> None:
    failed = {**peer(), "samples": [], "note": "failed: no memory", "agreement": agreement([], [])}
    failed["described"] = {}
    assert "| SAEDashboard (defaults) | failed: no memory |" in markdown(
        record(groups=[{"cells": [ours(), failed]}]), None
    )


def grown() -> dict[str, list[dict[str, Any]]]:
    by_features = [
        {"cells": [ours(features / 4096, features), peer(3.0, features)]} for features in (1024, 4096, 16_384)
    ]
    by_tokens = [{"cells": [ours(0.5 + contexts / 64, contexts=contexts)]} for contexts in (32, 64, 128)]
    return {"F": by_features, "tokens": by_tokens}


def test_growth_has_slopes_and_a_straight_line() -> None:
    report = markdown(record(growth=grown()), "picture.png")
    assert "![Growth with F and with tokens, both axes logarithmic](picture.png)" in report
    assert "Slopes in log-log over F: pass 1.00, encoder product 0.00, pass in G +1.00" in report
    assert "peer 1.00" in report
    # 0.5 s and 1/64 s a context of 128 tokens
    assert "Straight line through the passes: 0.50 s and 122.1 µs a token." in report


def test_the_picture_has_both_panels_and_is_written(tmp_path: Path) -> None:
    made = record(growth=grown())
    assert set(series_of("F", made["growth"]["F"])) == {
        "token pass",
        "encoder product",
        "weights",
        "store",
        "SAEDashboard",
    }
    assert "SAEDashboard" not in series_of("tokens", made["growth"]["tokens"])
    file = draw(made, tmp_path / "growth.png")
    assert file is not None
    assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert draw(record(), tmp_path / "nothing.png") is None


def memory_entry(features: int, anonymous: float) -> dict[str, Any]:
    found = {
        "over_data": anonymous + 5e6, "anonymous": anonymous, "built": 1e6, "writing_anonymous": 2e6, "peak_reset": True,
        "steps_s": 10.0, "described": {"rows": 4096, "state_bytes_a_feature": 12_240.0},
    }  # fmt: skip
    return {**ours(features=features), "found": found}


def test_memory_of_a_million_features_follows_from_the_line() -> None:
    """17 KB a feature over 100 MiB: 16.7 GiB."""
    entries = [memory_entry(features, 100 * 2**20 + 17_000 * features) for features in (1024, 4096, 16_384)]
    report = markdown(record(memory=entries), None)
    assert (
        "17.0 KB a feature (weights and state) over 100 MiB; for 1,048,576 features that is 16.7 GiB (goal 24: met)"
        in report
    )
    report = markdown(record(memory=[memory_entry(f, 30_000 * f) for f in (1024, 4096)]), None)
    assert "29.3 GiB (goal 24: MISSED)" in report


def test_a_million_features_are_reported_from_a_run() -> None:
    report = markdown(record(million=memory_entry(1 << 20, 18 * 2**30)), None)
    assert "18.0 GiB of anonymous memory" in report
    assert "all of which is 12.0 GiB: 12.0 GiB with the weights (goal 24: met)" in report
    assert "(goal 24: MISSED)" in markdown(record(million=memory_entry(1 << 20, 25 * 2**30)), None)


# --- what is measured -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [QUICK, FULL])
def test_groups_share_an_sae_and_rows_and_the_peer_has_them_all(sizes: Sizes) -> None:
    groups = [*sizes.comparison(), *(group for groups in sizes.growth().values() for group in groups)]
    for group in groups:
        assert group[0].tool == OURS
        assert all(
            cell.tool == PEER and cell.sae == group[0].sae and cell.group == group[0].group for cell in group[1:]
        )
        assert group[0].contexts * 128 <= sizes.tokens
        assert all(cell.contexts <= sizes.grid_contexts for cell in group[1:])
    compared = {(group[0].features, group[0].architecture) for group in sizes.comparison()}
    assert compared == {(features, name) for features in sizes.widths for name in ("topk", "batchtopk")}


class StubCrew:
    """Answers as workers would, and notes who is asked to step."""

    def __init__(self) -> None:
        self.stepped: list[tuple[str, int]] = []

    def has(self, library: str) -> bool:
        del library
        return True

    def forget(self, library: str) -> None:
        del library

    def on_rows(self, library: str, rows: Path, most: int | None) -> Any:
        assert (most is None) == (library == PEER)  # the peer needs all rows in memory
        del rows
        return StubWorker(self, library)


class StubWorker:
    def __init__(self, crew: StubCrew, library: str) -> None:
        self.crew, self.library = crew, library

    def tell(self, do: str, **order: Any) -> dict[str, Any]:
        if do == "run":
            self.crew.stepped.append((self.library, order["steps"]))
            return {"samples": [sample(1.0, 1, 1, 1, 1)] * order["steps"]}
        if do == "maxima":
            return {"features": [3, 1], "maxima": [1.0, 2.0]}
        if do == "describe":
            return {"rows": 4096}
        return {"failed": "no such trainer"} if do == "parts" and self.library == PEER else {}


def test_tools_take_turns_and_a_failure_leaves_the_others(tmp_path: Path) -> None:
    crew = StubCrew()
    runs = analysis.Analysis(crew, tmp_path, QUICK)  # type: ignore[arg-type]
    cells = [Cell(OURS), Cell(PEER, "defaults"), Cell(PEER, "neuronpedia")]
    entries = runs.group(cells, rounds=2, parts=False)
    warm, turns = crew.stepped[0], crew.stepped[1:]
    assert warm == (OURS, 1)
    assert [library for library, _ in turns] == [OURS, PEER, PEER] * 2
    assert [len(entry["samples"]) for entry in entries] == [2, 2, 2]
    assert entries[1]["agreement"] == {"features": 2, "same": 2, "silent": 0}
    entries = runs.group(cells, rounds=1, parts=True)
    assert entries[0]["samples"]
    assert entries[1]["samples"] == []
    assert entries[1]["note"] == "failed: no such trainer"


# --- inputs and our side, on a small model ----------------------------------------------------------------------------


@pytest.fixture(name="inputs")
def small_inputs(tiny_llama: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ``prepare_inputs`` leaves, of the tiny model; the worker's model is the tiny one too."""
    generator = np.random.default_rng(0)
    words = ["river", "12", "the", "Mountain", "sings", "é", "of"]
    texts = [" ".join(generator.choice(words, 200)) + "." for _ in range(8)]
    tokens = tokenize(texts, tiny_llama.tokenizer, context_length=CONTEXT_LENGTH, part="all", progress=SilentProgress())
    hook = resolve_hook(tiny_llama, 1, "residual")
    store = harvest(tiny_llama, tokens, [hook], root=tmp_path / "stores", dtype="float32", progress=SilentProgress())[
        hook.name
    ]
    folder = tmp_path / "inputs"
    vocabulary = tiny_llama.module.get_output_embeddings().weight.shape[0]
    facts = {"tokens_folder": str(tokens.folder), "store": str(store.path), "vocabulary": vocabulary}
    folder.mkdir()
    write_json(folder / "inputs.json", facts)
    monkeypatch.setattr(analysis_neuronmap, "language_model", lambda: tiny_llama)
    monkeypatch.setattr(analysis_neuronmap, "LAYER", 1)
    monkeypatch.setattr(analysis_inputs, "K", 4)
    monkeypatch.setenv("ANALYSIS_SCRATCH", str(tmp_path / "scratch"))
    return folder


def order(inputs: Path, contexts: int, features: int = 64, architecture: str = "topk") -> dict[str, Any]:
    cell = Cell(OURS, "", architecture, "rows", features, contexts, batch=64)
    prepare_sae(inputs, cell, 1, SilentProgress(), lambda _: None)
    return {**cell.order(), "inputs": str(inputs), "context": CONTEXT_LENGTH}


def all_contexts(inputs: Path) -> int:
    return int(open_rows(inputs, 1).whole.tokens.num_contexts)


def test_the_grid_holds_every_row_at_its_place(inputs: Path) -> None:
    rows = open_rows(inputs, 20)
    x_CTD = grid(rows, 20).reshape(20, CONTEXT_LENGTH, -1)
    (hook,) = rows.hooks
    mean_D = rows.mean(hook).float().numpy()
    seen = np.zeros((20, CONTEXT_LENGTH), bool)
    for found in (block[hook] for block in rows.blocks([0, 1], 10)):
        assert np.array_equal(x_CTD[found.sequence_B, found.position_B], found.x_BD.numpy())
        seen[found.sequence_B, found.position_B] = True
    assert not seen[:, 0].any()  # first positions are masked
    assert (x_CTD[~seen] == mean_D).all()
    assert seen.mean() > 0.8


def test_the_first_contexts_are_rows_of_their_own(inputs: Path) -> None:
    rows = open_rows(inputs, 16)
    (hook,) = rows.hooks
    assert rows.tokens.num_contexts == 16
    assert rows.digest(hook) != open_rows(inputs, 17).digest(hook)
    list(rows.blocks([0, 1], 8))
    assert rows.count > 16 * 8
    assert rows.seconds > 0
    with pytest.raises(InputError, match="no whole number of blocks of 5"):
        list(rows.blocks([0], 5))


def test_features_made_from_rows_are_those_rows(inputs: Path) -> None:
    store = analysis_inputs.open_store(inputs)
    sae = from_rows(store, "topk", 48)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(48), atol=1e-5)
    assert torch.equal(sae.W_enc.T, sae.W_dec)
    mean_D = store.statistics.mean_D.float()
    unit_ND = torch.nn.functional.normalize(store.read(0, store.num_rows) - mean_D, dim=1)
    assert float((sae.W_dec @ unit_ND.T).max(dim=1).values.min()) == pytest.approx(1.0, abs=1e-4)
    many = from_rows(store, "topk", store.num_rows + 32)  # more features than rows: noise makes them different
    assert torch.allclose(many.W_dec.norm(dim=1), torch.ones(many.d_sae), atol=1e-5)
    assert not torch.allclose(many.W_dec[:32], many.W_dec[store.num_rows :], atol=1e-3)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_a_timed_step_is_a_whole_pass_and_describe_writes_a_store(inputs: Path, architecture: str) -> None:
    contexts = 32
    trainer = OurAnalysis(order(inputs, contexts, architecture=architecture), torch.empty(0))
    trainer.prepare()
    trainer.step()
    state = trainer.states[analysis_neuronmap.NAME]
    assert state.done_G.all()
    assert state.rows == trainer.rows.count > contexts * 10
    (hook,) = trainer.rows.hooks
    x_BD = torch.cat([block[hook].x_BD.clone() for block in trainer.rows.blocks(range(contexts), 1)])
    f_BF = trainer.sae.encode(x_BD)
    seen = trainer.maxima(list(range(64)))
    assert seen["maxima"] == pytest.approx(f_BF.amax(0).tolist(), rel=1e-4, abs=1e-4)
    described = trainer.describe()
    assert described["rows"] == state.rows
    assert described["l0"] == pytest.approx(float((f_BF > 0).sum()) / len(x_BD), rel=0.01)
    assert described["seconds"]["weights"] > 0
    assert described["seconds"]["finish"] > 0
    assert {"features.parquet", "examples.parquet", "manifest.json"} <= set(described["files"])
    own = sum(size for name, size in described["files"].items() if name not in analysis_neuronmap.SHARED)
    assert described["bytes_a_feature"] == own / 64
    assert described["bytes_in_all"] > own
    assert not trainer.folder.exists()


def test_every_step_begins_anew(inputs: Path) -> None:
    """A second pass into the same folder would only load the first one's state."""
    trainer = OurAnalysis(order(inputs, 32), torch.empty(0))
    for _ in range(2):
        trainer.prepare()
        trainer.step()
        assert trainer.rows.count == trainer.states[analysis_neuronmap.NAME].rows
    trainer.close()


def test_parts_add_up_and_leave_no_stopwatch(inputs: Path) -> None:
    trainer = OurAnalysis(order(inputs, 32), torch.empty(0))
    originals = [getattr(holder, name) for _, holder, name in analysis_neuronmap.PARTS]
    spent = parts_of_pass(trainer, lambda: 0.25, 2)["stopwatch"]
    trainer.close()
    assert [getattr(holder, name) for _, holder, name in analysis_neuronmap.PARTS] == originals
    assert spent["G"] == 0.25
    parts = {name: seconds for name, seconds in spent.items() if name not in ("G", "step")}
    assert set(parts) == {"read", "encode", "sample's codes", "count", "save", "rest"}
    assert min(parts.values()) > 0
    assert sum(parts.values()) == pytest.approx(spent["step"])


def test_the_worker_answers_in_the_order_of_a_run(inputs: Path, tmp_path: Path) -> None:
    cell = order(inputs, 32)
    np.save(tmp_path / "grid.npy", np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32))
    worker = AnalysisWorker(OurAnalysis, {"neuronmap": "x"}, parts_of_pass)
    assert worker.answer({"do": "open", "rows": str(tmp_path / "grid.npy"), "most": 64})["rows"] == [64, 32]
    assert worker.answer({"do": "build", "id": "1", "cell": cell}) == {}
    samples = worker.answer({"do": "run", "id": "1", "steps": 2})["samples"]
    assert samples[0]["after"] == samples[1]["before"]
    assert len(worker.answer({"do": "maxima", "id": "1", "features": [0, 5]})["maxima"]) == 2
    assert worker.answer({"do": "parts", "id": "1", "steps": 1})["parts"]["stopwatch"]["step"] > 0
    entry = {"cell": cell, "samples": samples, "described": worker.answer({"do": "describe", "id": "1"})}
    assert whole(entry) is not None
    worker.answer({"do": "drop", "id": "1"})
    found = worker.answer({"do": "memory", "cell": cell, "steps": 1})
    assert found["peak"] >= found["ground"]
    assert found["steps_s"] > 0
    assert found["described"]["rows"] == entry["described"]["rows"]


def test_shares_of_a_peer_need_its_parts() -> None:
    assert analysis_report.logit_share(peer()) == pytest.approx(0.25)
    assert analysis_report.logit_share({**peer(), "parts": None}) is None


def test_rows_of_a_whole_store_keep_their_tokens(inputs: Path) -> None:
    rows = open_rows(inputs, all_contexts(inputs))
    assert rows.tokens is rows.whole.tokens
    assert isinstance(rows.whole, StoredRows)
    assert isinstance(rows, FirstContexts)
