"""Several processes train what one would: curves, weights, checkpoints and files."""

from __future__ import annotations

import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from neuronmap.saes import load_sae
from neuronmap.saes.kernels.select import top_of_entries
from neuronmap.training import SAEConfig, TrainingRun
from neuronmap.training.checkpoint import latest_checkpoint, load_checkpoint

sys.path.insert(0, str(Path(__file__).parent))
from worker import launch, train

STEPS = 20
FIELDS: dict[str, Any] = {
    "hidden_dim": 48, "context_length": 32, "batch_size": 8, "max_steps": STEPS, "num_epochs": 4, "learning_rate": 3e-3,
    "history_every_steps": 1, "checkpoint_every_steps": 8, "dead_after_tokens": 512, "device": "cpu",
}  # fmt: skip
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "topk": {"k": 4},
    "batchtopk": {"k": 4, "clip_norm": 0.05},
    "matryoshka": {
        "k": 4,
        "batch_size": 2,
        "max_steps": 110,
        "architecture_options": {"sort_features": True},
        "history_every_steps": 10,
    },
    "jumprelu": {"target_l0": 2, "architecture_options": {"target_weight": 3.0, "initial_l0": 1.0}},
    "relu": {"sparsity_penalty": 3.0, "decay_fraction": 0.0},
    "lista": {"k": 4, "kernels": "torch"},
    "gated": {"sparsity_penalty": 0.05},
}
TIED = [3.0, 1.0, 2.0, 2.0, 0.5, 2.0, 2.0, 1e-30, 2.0, 7.5, 2.0, 1.0]
COUNTS = [1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13]


def sparse_rows() -> torch.Tensor:
    """Sparse mixtures of random unit directions, with a mean."""
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(32, 16, generator=g), dim=1)
    active = (torch.rand(2048, 32, generator=g) < 0.06) * (0.5 + torch.rand(2048, 32, generator=g))
    return 20.0 * (active @ directions) + 3.0


def job(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    """A training of ``name`` in the folder of that name."""
    architecture = name.split("-")[0]
    config = {**FIELDS, **ARCHITECTURES[architecture], "architecture": architecture}
    return {"config": config, "rows": str(folder.parent / "rows.pt"), "folder": str(folder / "runs" / name), **more}


def curve(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def alike(one: Path, other: Path) -> None:
    """Both runs came out the same, but for the order in which sums were taken."""
    ours, theirs = curve(one), curve(other)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for figure in ("loss", "mse", "l0", "heldout_explained_variance"):
        assert [row.get(figure, 0.0) for row in ours] == pytest.approx(
            [row.get(figure, 0.0) for row in theirs], rel=1e-5
        )
    assert [row["dead"] for row in ours] == [row["dead"] for row in theirs]
    mine, yours = load_sae(one / "sae").state_dict(), load_sae(other / "sae").state_dict()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, yours[name], rtol=1e-4, atol=2e-5, msg=lambda said, at=name: f"{at}: {said}")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("parallel")
    torch.save(sparse_rows(), folder / "rows.pt")
    return folder


@pytest.fixture(scope="module")
def alone(place) -> Path:
    """Every training by one process, and one that was stopped."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in ARCHITECTURES:
        assert "error" not in train(job(place / "alone", name))
    assert train(job(place / "alone", "batchtopk-stopped", stop_at=11))["error"] == "Interrupted"
    torch.set_num_threads(threads)
    return place / "alone" / "runs"


@pytest.fixture(scope="module")
def two(place, alone) -> tuple[Path, list[list[dict[str, Any]]]]:
    """The same by two processes; those that one or four processes go on with; and what is refused."""
    folder = place / "two"
    shutil.copytree(alone / "batchtopk-stopped", folder / "runs" / "batchtopk-stopped")
    jobs = [job(folder, name) for name in ARCHITECTURES]
    jobs.append(job(folder, "batchtopk-stopped", resume=True))
    jobs.append(job(folder, "batchtopk-left", stop_at=11))
    jobs.append(job(folder, "topk-sweep", sweep=True))
    jobs.append(job(folder, "relu-diverging"))
    jobs[-1]["config"] |= {"learning_rate": 1e6, "clip_norm": None}
    jobs.append({"values": TIED, "counts": COUNTS})
    return folder / "runs", launch(jobs, 2, folder)


@pytest.fixture(scope="module")
def four(place, two) -> tuple[Path, list[list[dict[str, Any]]]]:
    folder = place / "four"
    shutil.copytree(two[0] / "batchtopk-left", folder / "runs" / "batchtopk-left")
    jobs = [job(folder, "jumprelu"), job(folder, "batchtopk-left", resume=True), {"values": TIED, "counts": COUNTS}]
    return folder / "runs", launch(jobs, 4, folder)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_two_processes_train_what_one_does(alone, two, name):
    folder, given = two
    alike(alone / name, folder / name)
    at = list(ARCHITECTURES).index(name)
    assert given[0][at]["norm"] == given[1][at]["norm"]  # both hold the finished SAE
    assert given[0][at]["summary"] == given[1][at]["summary"]


def test_the_trainings_compared_have_dead_features_to_revive(alone):
    for name in ("batchtopk", "matryoshka", "jumprelu", "lista"):
        assert any("aux" in row for row in curve(alone / name)), name
    dead = [row["dead"] for row in curve(alone / "relu")]
    assert any(before > after for before, after in pairwise(dead))  # drawn anew


def test_four_processes_train_what_one_does(alone, four):
    alike(alone / "jumprelu", four[0] / "jumprelu")


def test_a_run_goes_on_in_another_number_of_processes(place, alone, two, four):
    alike(alone / "batchtopk", two[0] / "batchtopk-stopped")  # 1 -> 2
    alike(alone / "batchtopk", four[0] / "batchtopk-left")  # 2 -> 4
    back = place / "back" / "runs" / "batchtopk-left"
    shutil.copytree(two[0] / "batchtopk-left", back)
    assert "error" not in train(job(place / "back", "batchtopk-left", resume=True))  # 2 -> 1
    alike(alone / "batchtopk", back)


def test_a_checkpoint_of_two_processes_is_one_of_a_run(alone, two):
    ours, state = load_checkpoint(latest_checkpoint(two[0] / "batchtopk-left" / "checkpoints"), "cpu")
    theirs, before = load_checkpoint(latest_checkpoint(alone / "batchtopk-stopped" / "checkpoints"), "cpu")
    assert state["step"] == before["step"] == 11
    assert (state["processes"], before["processes"]) == (2, 1)
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in theirs.items()
    }


def test_a_signal_to_one_process_stops_all(two):
    folder, given = two
    stopped = [ended[len(ARCHITECTURES) + 1] for ended in given]
    assert [one["error"] for one in stopped] == ["Interrupted", "Interrupted"]
    assert "SIGINT after step 11" in stopped[0]["message"]
    assert "a signal to another process after step 11" in stopped[1]["message"]
    assert TrainingRun(folder / "batchtopk-left").read()["status"] == "interrupted"


def test_all_processes_see_a_training_diverge(two):
    folder, given = two
    seen = [ended[len(ARCHITECTURES) + 3] for ended in given]
    assert [one["error"] for one in seen] == ["TrainingDivergedError"] * 2
    assert seen[0]["message"] == seen[1]["message"]
    assert TrainingRun(folder / "relu-diverging").read()["status"] == "diverged"
    assert latest_checkpoint(folder / "relu-diverging" / "checkpoints") is not None


def test_only_the_first_process_writes(two, four):
    for _, given in (two, four):
        assert given[0][-1]["wrote"] > 20
        assert [ended[-1]["wrote"] for ended in given[1:]] == [0] * (len(given) - 1)


def test_a_sweep_is_refused(two):
    refused = two[1][0][len(ARCHITECTURES) + 2]
    assert refused["error"] == "ConfigError"
    assert "torchrun started 2" in refused["message"]


@pytest.mark.parametrize("team", ["two", "four"])
def test_the_largest_of_all_processes_with_ties_to_the_first(request, team):
    given = request.getfixturevalue(team)[1]
    values = torch.tensor(TIED)
    for at, count in enumerate(COUNTS):
        kept = [flag for ended in given for flag in ended[-1]["kept"][at][0]]
        expected = top_of_entries(values, count)
        assert torch.tensor(kept).nonzero().view(-1).tolist() == (
            list(range(len(values))) if expected is None else expected.tolist()
        )
        cut = min((value for value, flag in zip(TIED, kept, strict=True) if flag), default=None)
        assert given[0][-1]["kept"][at][1] == (pytest.approx(cut, rel=1e-7) if count <= len(TIED) else None)


def test_configurations_name_what_several_processes_cannot_do():
    from neuronmap.errors import ConfigError
    from neuronmap.training.parallel.split import require_splittable
    from neuronmap.training.parallel.team import Team

    fields = {"architecture": "topk", "k": 4, "hidden_dim": 48, "batch_size": 3, "context_length": 33}
    require_splittable(SAEConfig(**fields), Team(0, 3))
    for more, said in (
        ({"batch_size": 1, "context_length": 32}, "batch_size to a multiple of 3"),
        ({"stream": True}, "stream"),
        ({"device": "cuda:0"}, "one device for 3 processes"),
    ):
        with pytest.raises(ConfigError) as refused:
            require_splittable(SAEConfig(**{**fields, **more}), Team(0, 3))
        assert said in f"{refused.value.message} {refused.value.hint}"
        require_splittable(SAEConfig(**{**fields, **more}), Team())
