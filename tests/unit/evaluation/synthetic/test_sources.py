"""Synthetic rows as a source for training, as a store on disk, and the baselines made from them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from neuronmap.activations import ActivationStore
from neuronmap.errors import AlreadyExistsError, ConfigError, InputError, Interrupted, MismatchError
from neuronmap.evaluation import evaluate_sae
from neuronmap.evaluation.synthetic import (
    GroundTruthCell,
    OracleSAE,
    SyntheticModel,
    SyntheticRows,
    explained_variance_ceiling,
    ground_truth_run,
    ground_truth_sweep,
    measure_against_truth,
    open_corpus,
    probe_ceiling,
    random_decoder,
    synthetic_preset,
    training_config,
    untrained_sae,
    write_corpus,
)
from neuronmap.evaluation.synthetic.sweep import keep_model, train_on_truth
from neuronmap.progress import SilentProgress
from neuronmap.training import SAETrainer

SILENT = SilentProgress()


@pytest.fixture(scope="module")
def model() -> SyntheticModel:
    return SyntheticModel.from_config(synthetic_preset("tiny"))


class Interrupting(SilentProgress):
    """Sends this process Ctrl-C when a bar has moved a number of times."""

    def __init__(self, left: int) -> None:
        self.left = left

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Interrupting]:
        yield self

    def advance(self, amount: int, **figures: str) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


def small_cell(model: SyntheticModel, architecture: str = "topk", seed: int = 0) -> GroundTruthCell:
    training = training_config(architecture, model.config, 3, seed=seed, batch_rows=256)
    return GroundTruthCell(
        synthetic=model.config, training=training, train_rows=8192, heldout_rows=1024, measure_rows=2048, bootstrap=20
    )


def test_rows_are_those_of_the_model_in_any_pieces(model: SyntheticModel) -> None:
    rows = SyntheticRows(model, 5000)
    expected = model.sample(0, 5000)[0]
    assert torch.equal(rows.read(0, 5000), expected)
    out = torch.empty(700, 32, dtype=torch.float64)
    assert rows.read(900, 1600, out) is out
    assert torch.equal(out.float(), expected[900:1600])
    assert rows.statistics.rows == 5000
    assert torch.allclose(rows.statistics.mean_D, expected.double().mean(0), atol=1e-9)
    assert rows.statistics.mean_square_norm == pytest.approx(float(expected.double().square().sum(1).mean()))
    with pytest.raises(InputError, match="rows 0 to 5000"):
        rows.read(4999, 5001)
    with pytest.raises(InputError, match="num_rows = 0"):
        SyntheticRows(model, 0)


def test_statistics_of_many_rows_are_taken_from_the_first(
    model: SyntheticModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuronmap.evaluation.synthetic.rows.STATISTICS_ROWS", 2048)
    long, short = SyntheticRows(model, 10**9).statistics, SyntheticRows(model, 2048).statistics
    assert long.rows == 10**9
    assert torch.equal(long.mean_D, short.mean_D)
    assert torch.allclose(long.variance_D, short.variance_D, rtol=1e-12)


def test_the_digest_says_what_the_rows_are(model: SyntheticModel) -> None:
    again = SyntheticModel.from_config(synthetic_preset("tiny"))
    assert SyntheticRows(again, 5000).digest == SyntheticRows(model, 5000).digest
    others = [SyntheticRows(model, 5001), SyntheticRows(model, 5000, "other")]
    others.append(SyntheticRows(SyntheticModel.from_config(synthetic_preset("tiny", seed=1)), 5000))
    assert len({source.digest for source in (SyntheticRows(model, 5000), *others)}) == 4


def test_an_interrupted_run_goes_on_to_the_same_weights(model: SyntheticModel, tmp_path: Path) -> None:
    cell = small_cell(model)
    whole = train_on_truth(cell, model, tmp_path / "whole", SILENT)
    with pytest.raises(Interrupted):
        train_on_truth(cell, model, tmp_path / "parts", Interrupting(10))
    resumed = train_on_truth(cell, SyntheticModel.from_config(model.config), tmp_path / "parts", SILENT)
    for one, other in zip(whole.sae.parameters(), resumed.sae.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_corpus_is_a_store_with_the_truth_beside_it(model: SyntheticModel, tmp_path: Path) -> None:
    corpus = write_corpus(model, 5000, tmp_path / "rows", progress=SILENT)
    store = ActivationStore.open(tmp_path / "rows", verify=True)
    assert (store.num_rows, store.width, store.dtype) == (5000, 32, torch.float32)
    x, truth = model.sample(0, 5000)
    assert torch.equal(store.read(0, 5000), x)
    opened = open_corpus(tmp_path / "rows")
    assert torch.equal(opened.truth(1000, 1100).dense(), truth.rows(1000, 1100).dense())
    assert torch.equal(opened.model.dictionary_GD, model.dictionary_GD)
    assert corpus.store.digest == SyntheticRows(model, 5000).digest
    config = training_config("batchtopk", model.config, 3, batch_rows=256)
    trained = SAETrainer(config, progress=SILENT, run_folder=tmp_path / "run").train(store)
    assert trained.metadata.model is not None
    assert trained.metadata.model["name"] == "synthetic/tiny"
    assert evaluate_sae(trained.sae, store, bootstrap=20, progress=SILENT).protocol.contexts == 40
    with pytest.raises(AlreadyExistsError, match="already exists"):
        write_corpus(model, 5000, tmp_path / "rows", progress=SILENT)
    (tmp_path / "rows" / "synthetic.json").unlink()
    with pytest.raises(InputError, match="no truth beside it"):
        open_corpus(tmp_path / "rows")


def test_a_corpus_needs_nothing_but_numpy_to_be_read(
    model: SyntheticModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuronmap.evaluation.synthetic.rows._SHARD_BYTES", 2048 * 32 * 4)
    folder = tmp_path / "rows"
    write_corpus(model, 5000, folder, progress=SILENT)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert [shard["rows"] for shard in manifest["shards"]] == [2048, 2048, 904]
    parts = [
        np.fromfile(folder / f"rows-{number:05}.bin", "<f4").reshape(shard["rows"], manifest["width"])
        for number, shard in enumerate(manifest["shards"])
    ]
    x, truth = model.sample(0, 5000)
    assert np.array_equal(np.concatenate(parts), x.numpy())
    raw = (folder / "truth.safetensors").read_bytes()
    header_end = 8 + int.from_bytes(raw[:8], "little")
    described = json.loads(raw[8:header_end])["dictionary_GD"]
    start, stop = described["data_offsets"]
    directions = np.frombuffer(raw[header_end + start : header_end + stop], "<f4").reshape(described["shape"])
    assert np.allclose(truth.dense().numpy() @ directions, x.numpy(), atol=1e-5), "rows are sums of these directions"


def test_an_interrupted_corpus_goes_on(model: SyntheticModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, calls = SyntheticRows.read, []

    def failing(self: SyntheticRows, start: int, stop: int, out: torch.Tensor | None = None) -> torch.Tensor:
        calls.append(start)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(self, start, stop, out)

    monkeypatch.setattr("neuronmap.activations.writer.JOURNAL_SECONDS", 0.0)
    monkeypatch.setattr(SyntheticRows, "read", failing)
    with pytest.raises(KeyboardInterrupt):
        write_corpus(model, 5000, tmp_path / "rows", progress=SILENT)
    corpus = write_corpus(model, 5000, tmp_path / "rows", progress=SILENT)
    assert calls[2:5] == [2048, 2048, 3072], "the two finished blocks were not drawn again"
    assert torch.equal(corpus.store.read(0, 5000), model.sample(0, 5000)[0])


def test_the_truth_of_rows_drawn_elsewhere_is_not_made_up(model: SyntheticModel, tmp_path: Path) -> None:
    corpus = write_corpus(model, 100, tmp_path / "rows", progress=SILENT)
    elsewhere = type(corpus)(corpus.store, corpus.model, corpus.stream, "cuda")
    with pytest.raises(MismatchError, match="drawn on cuda"):
        elsewhere.truth(0, 10)


def test_the_oracle_has_better_thresholds_than_any_common_one(model: SyntheticModel) -> None:
    def f1(threshold: torch.Tensor) -> float:
        value = measure_against_truth(OracleSAE(model, threshold), model, rows=4096, bootstrap=0, progress=SILENT)
        assert value.detection.f1.value is not None
        return value.detection.f1.value

    fitted = f1(OracleSAE.fit(model, 16_384).threshold_G)
    common = [f1(torch.full((64,), threshold)) for threshold in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)]
    assert fitted > max(common) - 0.005
    assert fitted > 0.85


def test_probes_are_at_least_as_good_as_the_oracles_thresholds(model: SyntheticModel) -> None:
    probes = probe_ceiling(model, truths=16, rows=8192, bootstrap=50)
    assert probes.count == 16
    assert probes.value is not None
    assert 0.88 < probes.value < 0.99
    assert probes.error
    again = probe_ceiling(model, truths=16, rows=8192, bootstrap=50)
    assert again == probes


def test_probes_can_be_kept_to_the_most_frequent_truths(model: SyntheticModel) -> None:
    frequent = probe_ceiling(model, truths=64, among=5, rows=2048, bootstrap=0)
    assert frequent.count == 5
    assert probe_ceiling(model, truths=64, among=1000, rows=2048, bootstrap=0).count == 64
    with pytest.raises(ConfigError, match="among = 0"):
        probe_ceiling(model, among=0)


def test_noise_bounds_what_any_code_explains() -> None:
    clean = SyntheticModel.from_config(synthetic_preset("tiny"))
    assert explained_variance_ceiling(clean, 2048) == pytest.approx(1.0, abs=1e-9)
    noisy = SyntheticModel.from_config(synthetic_preset("tiny", noise_std=0.2))
    variance = float(SyntheticRows(clean, 16_384).statistics.variance_D.sum())
    assert explained_variance_ceiling(noisy, 16_384) == pytest.approx(variance / (variance + 32 * 0.04), abs=0.01)


def test_random_and_untrained_saes_recover_nothing(model: SyntheticModel) -> None:
    config = training_config("batchtopk", model.config, 3)
    untrained = untrained_sae(config, SyntheticRows(model, 8192, "train"))
    for sae in (random_decoder(model, 64, 3), untrained):
        found = measure_against_truth(sae, model, rows=4096, bootstrap=0, progress=SILENT)
        assert found.directions.recovered.value == 0
        assert found.directions.cosine.value < 0.5
        assert found.detection.f1_latent_mean.value < 0.3
        assert found.l0.value == pytest.approx(3, abs=0.3)
    assert untrained.architecture == "batchtopk"


def test_a_finished_cell_is_read_and_not_run_again(model: SyntheticModel, tmp_path: Path) -> None:
    cell = small_cell(model)
    first, second = ground_truth_sweep([cell, small_cell(model, seed=1)], tmp_path, progress=SILENT)
    assert first.truth.protocol.rows == 2048
    assert first.truth != second.truth
    assert len(list((tmp_path / "cells").iterdir())) == 2
    assert not list((tmp_path / "scratch").iterdir())
    assert ground_truth_run(cell, tmp_path, progress=SILENT) == first, "seconds included: it was read"
    other = ground_truth_run(cell, tmp_path, marks={"code": "changed"}, progress=SILENT)
    assert other.key != first.key
    assert other.truth == first.truth
    with pytest.raises(ConfigError, match="other settings than the cell's"):
        ground_truth_run(cell, tmp_path, model=SyntheticModel.from_config(synthetic_preset("hierarchy")))


def test_a_cell_that_was_interrupted_goes_on(model: SyntheticModel, tmp_path: Path) -> None:
    cell = small_cell(model)
    whole = ground_truth_run(cell, tmp_path / "a", progress=SILENT)
    with pytest.raises(Interrupted):
        ground_truth_run(cell, tmp_path / "b", progress=Interrupting(12))
    assert len(list((tmp_path / "b" / "scratch").iterdir())) == 1
    assert ground_truth_run(cell, tmp_path / "b", progress=SILENT).truth == whole.truth


def test_the_model_of_a_sweep_is_made_once(tmp_path: Path) -> None:
    config = synthetic_preset("tiny")
    made = keep_model(config, tmp_path)
    assert keep_model(config, tmp_path).digest == made.digest
    assert len(list((tmp_path / "models").iterdir())) == 1


def test_an_l0_is_asked_of_architectures_that_have_one(model: SyntheticModel) -> None:
    assert training_config("topk", model.config, 3.4).k == 3
    assert training_config("jumprelu", model.config, 3.4).target_l0 == 3.4
    assert training_config("relu", model.config, sparsity_penalty=0.05).hidden_dim == 64
    with pytest.raises(ConfigError, match="neither k nor target_l0"):
        training_config("relu", model.config, 3)
    with pytest.raises(ConfigError, match="multiple of 128"):
        training_config("topk", model.config, 3, batch_rows=100)
