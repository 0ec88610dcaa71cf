"""Training on stored activations: what a run leaves, how it stops, and how it goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from neuronmap import SAEConfig, SAETrainer, SparseAutoencoder
from neuronmap.activations import ArrayRows
from neuronmap.errors import (
    ConfigError,
    DamagedError,
    DiskSpaceError,
    EmptyCorpusError,
    InputError,
    Interrupted,
    MismatchError,
    TrainingDivergedError,
)
from neuronmap.models.tuned import Tuned, machine_name
from neuronmap.progress import SilentProgress
from neuronmap.training import TrainingRun, checkpoint

ARCHITECTURES = {
    "relu": {"sparsity_penalty": 0.05},
    "gated": {"sparsity_penalty": 0.05},
    "topk": {"k": 4},
    "batchtopk": {"k": 4},
    "jumprelu": {"target_l0": 4.0},
    "matryoshka": {"k": 4},
    "lista": {"k": 4},
}


def fields_for(architecture: str, small: dict) -> dict:
    return {**{n: v for n, v in small.items() if n != "k"}, "architecture": architecture, **ARCHITECTURES[architecture]}


def train(config: SAEConfig, rows: torch.Tensor, **more):
    return SAETrainer(config, progress=SilentProgress(), **more.pop("trainer", {})).train(rows, **more)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_learns_and_works_on_raw_activations(architecture, small, rows):
    config = SAEConfig(**{**fields_for(architecture, small), "num_epochs": 20.0})
    result = train(config, rows)
    assert result.metrics["summary"]["explained_variance"] > 0.7
    x = rows[-200:]
    residual = (x - result.sae(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert residual < 0.35  # raw scale: the input scale has been folded in
    norms = result.sae.W_dec.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-5, rtol=0)


def test_a_run_leaves_bundle_history_and_status(small_config, rows):
    result = train(small_config, rows)
    assert json.loads((result.run.folder / "run.json").read_text())["status"] == "finished"
    assert {f.name for f in result.bundle.iterdir()} >= {
        "cfg.json",
        "sae_weights.safetensors",
        "metrics.json",
        "history.parquet",
    }
    history = result.history
    assert history[0]["step"] == 1
    assert history[-1]["step"] == 48
    assert history[-1]["heldout_explained_variance"] > history[0]["explained_variance"]
    assert all(row["tokens"] == row["step"] * 256 for row in history)
    loaded = SparseAutoencoder.load(result.bundle)
    assert torch.equal(loaded.encode(rows[:64]), result.sae.encode(rows[:64]))
    assert result.metadata.training["k"] == 4
    assert result.metadata.tokens_seen == 48 * 256


def test_the_calibrated_threshold_gives_the_trained_k_on_held_out_rows(small_config, rows):
    result = train(small_config, rows)
    assert result.metrics["summary"]["l0"] == pytest.approx(4.0, rel=0.02)


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(small, rows):
    first, same, other = (train(SAEConfig(**small, seed=seed), rows).sae.W_dec for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_training_leaves_the_global_random_state_alone(small_config, rows):
    before = torch.get_rng_state()
    train(small_config, rows)
    assert torch.equal(before, torch.get_rng_state())


# --- stopping and going on -------------------------------------------------------------------------------------------


class StopAfter:
    """A logger that sends this process a signal after a number of history rows."""

    def __init__(self, rows: int, number: int) -> None:
        self.left, self.number = rows, number

    def start(self, config, folder) -> None:
        pass

    def log(self, step, values) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)

    def finish(self, summary) -> None:
        pass


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_resume_gives_the_same_bits(architecture, number, small, rows):
    config = SAEConfig(**fields_for(architecture, small))
    whole = train(config, rows)
    with pytest.raises(Interrupted) as stopped:
        train(config, rows, trainer={"loggers": [StopAfter(17, number)]})
    folder = Path(str(stopped.value.hint).split()[-1])
    assert TrainingRun.open(folder).read()["status"] == "interrupted"
    resumed = SAETrainer.resume(folder, rows, progress=SilentProgress())
    assert_same(resumed, whole)


def test_the_batch_that_was_left_out_is_written_down_and_kept(small, rows):
    config = SAEConfig(**{**small, "batch_size": None, "num_epochs": 5.0})
    with pytest.raises(Interrupted) as stopped:
        train(config, rows, trainer={"loggers": [StopAfter(5, signal.SIGINT)]})
    folder = Path(str(stopped.value.hint).split()[-1])
    written = TrainingRun.open(folder).config()
    assert written.batch_rows == 512
    resumed = SAETrainer.resume(folder, rows, progress=SilentProgress())
    assert_same(resumed, train(written, rows))


def test_a_streamed_run_resumes_in_the_middle_of_the_text(tiny_gpt2):
    """Without stored activations: the model computes the interrupted bucket again, and the weights come out the same."""
    texts = [
        f"Speech {i}. The river froze in winter and the children walked to school. " * (6 + i % 5) for i in range(60)
    ]
    config = SAEConfig(
        layer=2, architecture="topk", k=4, hidden_dim=64, context_length=32, batch_size=4, num_epochs=3, stream=True
    )
    whole = train(config, texts, model=tiny_gpt2)
    with pytest.raises(Interrupted) as stopped:
        train(config, texts, model=tiny_gpt2, trainer={"loggers": [StopAfter(17, signal.SIGINT)]})
    folder = Path(str(stopped.value.hint).split()[-1])
    assert_same(SAETrainer.resume(folder, texts, model=tiny_gpt2, progress=SilentProgress()), whole)


def test_a_run_resumes_in_the_precision_it_was_begun_in_whatever_is_measured_since(tiny_gpt2, tmp_path):
    """``neuronmap doctor --tune`` between the two halves changes what ``model_dtype = "auto"`` and ``stream`` mean."""
    tiny_gpt2.module.save_pretrained(tmp_path / "model")
    tiny_gpt2.tokenizer.save_pretrained(tmp_path / "model")
    texts = [f"Speech {i}. The river froze in winter. " * (6 + i % 5) for i in range(60)]
    config = SAEConfig(
        model_name=str(tmp_path / "model"), layer=2, architecture="topk", k=4, hidden_dim=64, context_length=32, batch_size=4,
        num_epochs=4, stream=True,
    )  # fmt: skip
    whole = train(config, texts)
    with pytest.raises(Interrupted) as stopped:
        train(config, texts, trainer={"loggers": [StopAfter(7, signal.SIGINT)]})
    cpu, threads = torch.device("cpu"), torch.get_num_threads()
    Tuned(machine_name(cpu), "x", "2030-01-02", threads, threads, 64, "sdpa", "bfloat16", 1.0, 1.0, 0.0).save(cpu)
    folder = Path(str(stopped.value.hint).split()[-1])
    resumed = SAETrainer.resume(folder, texts, progress=SilentProgress())
    assert_same(resumed, whole)
    assert resumed.config.model_dtype == "auto"
    assert train(config, texts).data.language_model.dtype == torch.bfloat16


def assert_same(one, other) -> None:
    """Weights, buffers, and the history but for its times."""
    for (name, a), b in zip(one.sae.state_dict().items(), other.sae.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    timeless = [
        [
            {k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second", "waiting_share")}
            for row in result.history
        ]
        for result in (one, other)
    ]
    assert timeless[0] == timeless[1]


CHILD = textwrap.dedent(
    """
    import json, pathlib, sys
    import torch
    from neuronmap import SAEConfig, SAETrainer
    from neuronmap.progress import SilentProgress
    torch.set_num_threads(1)
    rows = torch.load(sys.argv[1], weights_only=True)
    if pathlib.Path(sys.argv[2], "run.json").exists():
        SAETrainer.resume(sys.argv[2], rows, progress=SilentProgress())
    else:
        config = SAEConfig.from_dict(json.loads(sys.argv[3]))
        SAETrainer(config, progress=SilentProgress(), run_folder=sys.argv[2]).train(rows)
    """
)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["batchtopk", "relu"])
def test_sigkill_at_random_points_changes_nothing(architecture, small, rows, tmp_path):
    """Killed without warning at random moments, resumed until done: the same weights as never killed."""
    config = SAEConfig(**{**fields_for(architecture, small), "num_epochs": 40.0, "checkpoint_every_steps": 25})
    torch.save(rows, tmp_path / "rows.pt")
    arguments = [sys.executable, "-c", CHILD, str(tmp_path / "rows.pt")]
    settings = json.dumps(config.to_dict())
    subprocess.run([*arguments, str(tmp_path / "whole"), settings], check=True)
    drawn = random.Random(7)
    kills = 0
    for _ in range(40):
        child = subprocess.Popen([*arguments, str(tmp_path / "killed"), settings])
        history = tmp_path / "killed" / "history.jsonl"
        before = history.stat().st_size if history.exists() else 0
        if kills < 4:
            # Wait until it trains again, then strike at a random moment.
            while child.poll() is None and (history.stat().st_size if history.exists() else 0) <= before:
                time.sleep(0.005)
            time.sleep(drawn.uniform(0.0, 0.3))
        else:
            child.wait(timeout=120)
        if child.poll() is None:
            child.kill()
            kills += 1
        child.wait()
        if (tmp_path / "killed" / "sae").exists():
            break
    assert kills >= 2, "the run was too short to be killed; make it longer"
    killed, whole = ((tmp_path / run / "sae" / "sae_weights.safetensors").read_bytes() for run in ("killed", "whole"))
    assert killed == whole


def test_resume_refuses_other_data_finished_runs_and_damaged_checkpoints(small_config, rows, tmp_path):
    with pytest.raises(Interrupted):
        train(small_config, rows, trainer={"loggers": [StopAfter(9, signal.SIGINT)], "run_folder": tmp_path / "run"})
    with pytest.raises(MismatchError, match="other data"):
        SAETrainer.resume(tmp_path / "run", rows * 2, progress=SilentProgress())
    with pytest.raises(InputError, match="give the same data again"):
        SAETrainer.resume(tmp_path / "run", progress=SilentProgress())
    newest = checkpoint.latest_checkpoint(tmp_path / "run/checkpoints")
    weights = newest / "state.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DamagedError, match="digest"):
        SAETrainer.resume(tmp_path / "run", rows, progress=SilentProgress())
    finished = train(small_config, rows)
    with pytest.raises(InputError, match="finished"):
        SAETrainer.resume(finished.run.folder, rows, progress=SilentProgress())
    with pytest.raises(InputError, match="no training run"):
        SAETrainer.resume("nothing-here")


def test_init_from_starts_where_the_other_sae_stands(small, rows):
    first = train(SAEConfig(**{**small, "num_epochs": 20.0}), rows)
    tuned = train(SAEConfig(**{**small, "learning_rate": 1e-6}), rows, init_from=first.bundle)
    torch.testing.assert_close(tuned.sae.W_dec, first.sae.W_dec, atol=1e-3, rtol=0)
    assert tuned.history[0]["explained_variance"] > 0.6
    with pytest.raises(MismatchError, match="number of features is 48, not 32"):
        train(SAEConfig(**{**small, "hidden_dim": 32}), rows, init_from=first.bundle)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_nan_activations_are_refused_with_the_row(small_config, rows):
    rows[17, 3] = float("nan")
    with pytest.raises(InputError, match="17"):
        train(small_config, rows)


def test_divergence_stops_and_keeps_the_newest_sane_checkpoint(small, rows, tmp_path):
    config = SAEConfig(**{**small, "learning_rate": 1e30, "clip_norm": None, "checkpoint_every_steps": 1})
    with pytest.raises(TrainingDivergedError, match="diverged at step 1") as stopped:
        train(config, rows, trainer={"run_folder": tmp_path / "run"})
    assert TrainingRun.open(tmp_path / "run").read()["status"] == "diverged"
    kept = checkpoint.latest_checkpoint(tmp_path / "run/checkpoints")
    assert kept.name == "step-00000000"
    assert str(kept) in stopped.value.hint
    tensors, _ = checkpoint.load_checkpoint(kept, "cpu")
    torch.testing.assert_close(tensors["sae.W_dec"].norm(dim=1), torch.ones(48))
    assert tensors["sae.W_enc"].norm(dim=0).max() <= 1.0


def test_wrong_width_too_little_and_nothing(small, rows):
    with pytest.raises(ConfigError, match=r"input_dim = 32.*16 wide"):
        train(SAEConfig(**small, input_dim=32), rows)
    with pytest.raises(EmptyCorpusError, match="do not fill one step of 256"):
        train(SAEConfig(**{**small, "num_epochs": 1.0}), rows[:100])
    with pytest.raises(ConfigError, match="nothing to train on"):
        train(SAEConfig(**small), None)
    with pytest.raises(InputError, match="zero"):
        train(SAEConfig(**small), torch.zeros(1000, 16))


def test_a_full_disk_is_an_error_and_the_run_resumes(small_config, rows, tmp_path, monkeypatch):
    whole = train(small_config, rows)
    real, calls = checkpoint.check_disk_space, []

    def full_after_three(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 4:
            raise DiskSpaceError("Checkpoints need more than is free.", hint="Free some disk space.")
        return real(*arguments, **keywords)

    monkeypatch.setattr(checkpoint, "check_disk_space", full_after_three)
    with pytest.raises(DiskSpaceError):
        train(small_config, rows, trainer={"run_folder": tmp_path / "run"})
    resumed = SAETrainer.resume(tmp_path / "run", rows, progress=SilentProgress())
    assert_same(resumed, whole)


def test_a_used_run_folder_is_refused(small_config, rows, tmp_path):
    train(small_config, rows, trainer={"run_folder": tmp_path / "run"})
    with pytest.raises(InputError, match="already holds"):
        train(small_config, rows, trainer={"run_folder": tmp_path / "run"})


# --- dead features ---------------------------------------------------------------------------------------------------


def test_resampling_brings_dead_relu_features_back(small, rows):
    fields = fields_for("relu", small) | {"num_epochs": 12.0, "dead_after_tokens": 2048}
    with_it = train(SAEConfig(**fields), rows).metrics["summary"]["dead_in_training"]
    without = train(SAEConfig(**{**fields, "dead_after_tokens": 10_000_000}), rows)
    assert with_it <= 0.2 * 48
    assert without.history[-1]["dead"] == 0  # the window never closed: nothing counts as dead


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"architecture": "topk", "k": 4}, ["the active features only"]),
        ({"architecture": "topk", "k": 4, "products": "dense"}, ["all features"]),
        ({"architecture": "relu", "k": None, "sparsity_penalty": 0.5}, ["all features", "the active features only"]),
    ],
    ids=["sparse", "forced dense", "relu becomes sparse"],
)
def test_the_log_says_which_kernels_run_and_how(rows, small, fields, told):
    notes: list[str] = []

    class Notes(SilentProgress):
        def note(self, message: str) -> None:
            notes.append(message)

    SAETrainer(SAEConfig(**{**small, **fields}), progress=Notes()).train(rows)
    assert sum("kernels:" in note for note in notes) == 1
    assert [part for note in notes if "products go over" in note for part in told if part in note] == told
    assert sum("products go over" in note for note in notes) == len(told)


def test_kernels_that_cannot_run_are_refused_by_name(rows, small, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError, match=r"kernels = 'triton' cannot run"):
        SAETrainer(SAEConfig(**{**small, "kernels": "triton", "device": "cpu"})).train(rows)


@pytest.mark.parametrize("fields", [{"kernels": "triton"}, {"compute_dtype": "bfloat16"}])
def test_what_cannot_run_is_refused_before_anything_is_read(small, fields, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError, match=next(iter(fields))):
        SAETrainer(SAEConfig(**{**small, **fields, "device": "cpu"})).train("no/such/text")


class _SlowRows(ArrayRows):
    """Rows that take their time, as a disk or a language model may."""

    def read(self, start, stop, out=None):
        time.sleep(0.02)
        return super().read(start, stop, out)


def test_a_run_says_that_it_was_waiting_for_its_rows(rows, small):
    notes: list[str] = []

    class Notes(SilentProgress):
        def note(self, message: str) -> None:
            notes.append(message)

    result = SAETrainer(SAEConfig(**small), progress=Notes()).train(_SlowRows(rows), heldout=rows[:256])
    assert any("waiting for activations to come from their source" in note for note in notes)
    assert result.history[-1]["waiting_share"] > 0.05
