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
from neuronmap.saes.kernels.select import select_top_k, top_of_entries
from neuronmap.training import SAEConfig, TrainingRun
from neuronmap.training.checkpoint import latest_checkpoint, load_checkpoint

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "activations"))
from test_harvest import folder_bytes
from worker import launch, train

pytestmark = pytest.mark.slow
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
    "jumprelu": {
        "target_l0": 2,
        "architecture_options": {
            "target_weight": 3.0,
            "initial_l0": 1.0,
            "target_anneal_factor": 1.0,
            "dead_penalty": 0.01,
        },
    },
    "relu": {"sparsity_penalty": 3.0, "decay_fraction": 0.0},
    "lista": {"k": 4, "kernels": "torch"},
    "gated": {"sparsity_penalty": 0.05},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "matryoshka-plain": {"architecture_options": {}, "batch_size": 8, "max_steps": STEPS, "history_every_steps": 1},
    "topk-few": {"hidden_dim": 5, "k": 2, "max_steps": 8},
    "topk-dense": {"products": "dense", "kernels": "torch", "k": 1, "aux_k": 1, "dead_after_tokens": 256},
}
"""Trainings whose features several processes can share, which those of the same architecture above cannot, and paths not taken there."""
WIDE = ["topk", "batchtopk", "matryoshka-plain", "relu", "jumprelu", "gated", "topk-dense"]
"""What is trained by processes that share the features."""
STREAMED: dict[str, Any] = {
    "layer": 2,
    "stream": True,
    "batch_size": 4,
    "k": 4,
    "max_steps": 24,
    "checkpoint_every_steps": 7,
}
"""Trainings without stored activations, of six buckets and more."""
ROWS = [[3.0, 1.0, 2.0, 2.0, 0.0, 2.0, 2.0, 7.0], [1.0] * 8, [-1.0] * 8, [0.5, -1.0, 0.0, 0.0, 0.25, 0.0, 9.0, 0.0]]
TIED = [3.0, 1.0, 2.0, 2.0, 0.5, 2.0, 2.0, 1e-30, 2.0, 7.5, 2.0, 1.0]
KS = [1, 2, 3, 4, 8]
COUNTS = [1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13]


def sparse_rows() -> torch.Tensor:
    """Sparse mixtures of random unit directions, with a mean."""
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(32, 16, generator=g), dim=1)
    active = (torch.rand(2048, 32, generator=g) < 0.06) * (0.5 + torch.rand(2048, 32, generator=g))
    return 20.0 * (active @ directions) + 3.0


def job(folder: Path, name: str, ranks: int = 1, **more: Any) -> dict[str, Any]:
    """A training of ``name`` in the folder of that name; ``ranks`` processes are to share the features."""
    architecture = name.split("-")[0]
    config = {**FIELDS, **ARCHITECTURES[architecture], **VARIANTS.get(name.removesuffix("-wide"), {})}
    config |= {"architecture": architecture, "feature_ranks": ranks}
    return {"config": config, "rows": str(folder.parent / "rows.pt"), "folder": str(folder / "runs" / name), **more}


def streamed(folder: Path, name: str, ranks: int = 1, **more: Any) -> dict[str, Any]:
    """As :func:`job`, of text that a model reads while it is trained on."""
    made = job(folder, name, ranks, home=str(folder / "home"), texts=str(folder.parent / "texts"), **more)
    made["config"] |= STREAMED | {"model_name": str(folder.parent / "model")}
    return made


def harvests(folder: Path) -> dict[str, dict[str, Any]]:
    """One that is not disturbed, two that are stopped by a signal to a process, and one whose model is broken in one process."""
    whole = {"harvest_in": str(folder / "whole"), "dtype": "int8"}
    by_signal = {"harvest_in": str(folder / "signalled"), "dtype": "auto", "then": "signal", "at": 3}
    broken = {"harvest_in": str(folder / "broken"), "dtype": "auto", "rank": 1, "at": 2, "then": "fail"}
    signalled = {f"harvest-signal-{rank}": {**by_signal, "rank": rank} for rank in (1, 0)}
    return {"harvest": whole, **signalled, "harvest-broken": broken}


def stored(root: Path) -> dict[str, dict[str, str]]:
    """The bytes of every store in a folder."""
    return {store.name: folder_bytes(store) for store in sorted(root.iterdir()) if store.is_dir()}


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
def place(tmp_path_factory, model_folder) -> Path:
    folder = tmp_path_factory.mktemp("parallel")
    torch.save(sparse_rows(), folder / "rows.pt")
    shutil.copytree(model_folder, folder / "model")
    (folder / "texts").mkdir()
    for i in range(48):
        text = f"Speech {i}. The river froze in winter and {i * 7919} children walked to school. " * (3 + i % 5)
        (folder / "texts" / f"{i}.txt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def alone(place) -> Path:
    """Every training by one process, and one that was stopped."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in (*ARCHITECTURES, *VARIANTS):
        assert "error" not in train(job(place / "alone", name))
    for name in ("batchtopk-stopped", "jumprelu-stopped"):
        assert train(job(place / "alone", name, stop_at=11))["error"] == "Interrupted"
    whole = train(streamed(place / "alone", "topk-streamed"))
    assert "error" not in whole
    (place / "contexts").write_text(str(whole["contexts"]))
    assert train(streamed(place / "alone", "topk-streamed-stopped", stop_at=11))["error"] == "Interrupted"
    torch.set_num_threads(threads)
    return place / "alone" / "runs"


@pytest.fixture(scope="module")
def two(place, alone) -> tuple[Path, list[dict[str, dict[str, Any]]]]:
    """The same by two processes; those that one or four processes go on with; and what is refused."""
    folder = place / "two"
    for name in ("batchtopk-stopped", "topk-streamed-stopped"):
        shutil.copytree(alone / name, folder / "runs" / name)
    trainings = [job(folder, name) for name in ARCHITECTURES]
    trainings += [job(folder, "batchtopk-stopped", resume=True), job(folder, "batchtopk-left", stop_at=11)]
    trainings += [job(folder, "topk-sweep", sweep=True), job(folder, "relu-diverging")]
    trainings[-1]["config"] |= {"learning_rate": 1e6, "clip_norm": None}
    trainings += [job(folder, f"{name}-wide", 2) for name in WIDE]
    trainings.append(job(folder, "jumprelu-left-wide", 2, stop_at=11))
    trainings += [streamed(folder, "topk-streamed"), streamed(folder, "topk-streamed-wide", 2)]
    trainings += [
        streamed(folder, "topk-streamed-ahead", threaded=True),
        streamed(folder, "topk-streamed-left", stop_at=11, threaded=True),
    ]
    trainings += [streamed(folder, "topk-streamed-broken", breaks=[1, 12], threaded=ahead) for ahead in (False, True)]
    trainings[-1]["folder"] += "-ahead"
    trainings.append(streamed(folder, "topk-streamed-waiting", signal=[1, 6]))
    trainings.append(streamed(folder, "topk-streamed-stopped", resume=True, threaded=True))
    jobs = {Path(one["folder"]).name: one for one in trainings}
    jobs |= {"part": {"part": True, "home": str(folder / "home")}}
    jobs |= {f"rows-{k}": {"rows_of": ROWS, "k": k} for k in KS}
    jobs |= harvests(folder)
    jobs |= {"moments": {"moments_of": [16, 48]}, "largest": {"values": TIED, "counts": COUNTS}}
    return folder / "runs", launch(jobs, 2, folder)


@pytest.fixture(scope="module")
def four(place, two) -> tuple[Path, list[dict[str, dict[str, Any]]]]:
    folder = place / "four"
    for name in ("batchtopk-left", "jumprelu-left-wide", "topk-streamed-left"):
        shutil.copytree(two[0] / name, folder / "runs" / name)
    trainings = [job(folder, "jumprelu"), job(folder, "batchtopk-left", resume=True, feature_ranks=2)]
    trainings += [job(folder, "jumprelu-left-wide", resume=True, feature_ranks=4), job(folder, "topk-few")]
    trainings += [job(folder, "matryoshka-plain-wide", 2), job(folder, "relu-wide", 2)]
    trainings += [
        streamed(folder, "topk-streamed-ahead", 2, threaded=True),
        streamed(folder, "topk-streamed-left", resume=True),
    ]
    jobs = {Path(one["folder"]).name: one for one in trainings}
    jobs |= {"moments": {"moments_of": [16, 49]}, "largest": {"values": TIED, "counts": COUNTS}}
    return folder / "runs", launch(jobs, 4, folder)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_two_processes_train_what_one_does(alone, two, name):
    folder, given = two
    alike(alone / name, folder / name)
    assert given[0][name]["norm"] == given[1][name]["norm"]  # both hold the finished SAE
    assert given[0][name]["summary"] == given[1][name]["summary"]


@pytest.mark.parametrize("name", WIDE)
def test_processes_that_share_the_features_train_what_one_does(alone, two, name):
    folder, given = two
    alike(alone / name, folder / f"{name}-wide")
    assert given[0][f"{name}-wide"]["norm"] == given[1][f"{name}-wide"]["norm"]


@pytest.mark.parametrize("name", ["matryoshka-plain", "relu"])
def test_a_mesh_of_two_by_two_trains_what_one_does(alone, four, name):
    alike(alone / name, four[0] / f"{name}-wide")


def test_the_trainings_compared_have_dead_features_to_revive(alone):
    for name in ("batchtopk", "matryoshka", "jumprelu", "lista", "matryoshka-plain", "topk-dense"):
        assert any("aux" in row for row in curve(alone / name)), name
    dead = [row["dead"] for row in curve(alone / "relu")]
    assert any(before > after for before, after in pairwise(dead))  # drawn anew


@pytest.mark.parametrize("name", ["jumprelu", "topk-few"])
def test_four_processes_train_what_one_does(alone, four, name):
    alike(alone / name, four[0] / name)  # of 5 features they update 2, 2, 1 and none


def test_a_run_goes_on_in_another_number_of_processes(place, alone, two, four):
    alike(alone / "batchtopk", two[0] / "batchtopk-stopped")  # 1 -> 2
    alike(alone / "batchtopk", four[0] / "batchtopk-left")  # 2 -> 2 x 2
    alike(alone / "jumprelu", four[0] / "jumprelu-left-wide")  # 1 x 2 -> 1 x 4
    for name, trained in (("batchtopk-left", "batchtopk"), ("jumprelu-left-wide", "jumprelu")):
        back = place / "back" / "runs" / name
        shutil.copytree(two[0] / name, back)
        assert "error" not in train(job(place / "back", name, resume=True))  # 2 -> 1, 1 x 2 -> 1
        alike(alone / trained, back)


@pytest.mark.parametrize("left", ["batchtopk-left", "jumprelu-left-wide"])
def test_a_checkpoint_of_two_processes_is_one_of_a_run(alone, two, left):
    ours, state = load_checkpoint(latest_checkpoint(two[0] / left / "checkpoints"), "cpu")
    theirs, before = load_checkpoint(latest_checkpoint(alone / f"{left.split('-')[0]}-stopped" / "checkpoints"), "cpu")
    assert state["step"] == before["step"] == 11
    assert (state["processes"], before["processes"]) == (2, 1)
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in theirs.items()
    }
    for name, tensor in theirs.items():
        if name != "rng.cpu":
            torch.testing.assert_close(
                ours[name], tensor, rtol=1e-4, atol=2e-5, msg=lambda said, at=name: f"{at}: {said}"
            )


def test_a_signal_to_one_process_stops_all(two):
    folder, given = two
    stopped = [ended["batchtopk-left"] for ended in given]
    assert [one["error"] for one in stopped] == ["Interrupted", "Interrupted"]
    assert "SIGINT after step 11" in stopped[0]["message"]
    assert "a signal to another process after step 11" in stopped[1]["message"]
    assert TrainingRun(folder / "batchtopk-left").read()["status"] == "interrupted"


def test_all_processes_see_a_training_diverge(two):
    folder, given = two
    seen = [ended["relu-diverging"] for ended in given]
    assert [one["error"] for one in seen] == ["TrainingDivergedError"] * 2
    assert seen[0]["message"] == seen[1]["message"]
    assert TrainingRun(folder / "relu-diverging").read()["status"] == "diverged"
    assert latest_checkpoint(folder / "relu-diverging" / "checkpoints") is not None


def test_only_the_first_process_writes(two, four):
    for _, given in (two, four):
        assert given[0]["largest"]["wrote"] > 20
        assert [ended["largest"]["wrote"] for ended in given[1:]] == [0] * (len(given) - 1)


def test_a_sweep_is_refused(two):
    refused = two[1][0]["topk-sweep"]
    assert refused["error"] == "ConfigError"
    assert "torchrun started 2" in refused["message"]


@pytest.mark.parametrize("team", ["two", "four"])
def test_the_largest_of_all_processes_with_ties_to_the_first(request, team):
    given = request.getfixturevalue(team)[1]
    values = torch.tensor(TIED)
    for at, count in enumerate(COUNTS):
        kept = [flag for ended in given for flag in ended["largest"]["kept"][at][0]]
        expected = top_of_entries(values, count)
        assert torch.tensor(kept).nonzero().view(-1).tolist() == (
            list(range(len(values))) if expected is None else expected.tolist()
        )
        cut = min((value for value, flag in zip(TIED, kept, strict=True) if flag), default=None)
        assert given[0]["largest"]["kept"][at][1] == (pytest.approx(cut, rel=1e-7) if count <= len(TIED) else None)


def test_each_process_keeps_the_moments_of_its_share(two, four):
    one = train({"moments_of": [16, 48]})
    assert one["matrices"] == 2 * 2 * 16 * 48 * 4
    found = [ended["moments"] for ended in two[1]]
    assert [each["matrices"] for each in found] == [one["matrices"] // 2] * 2
    assert [each["vectors"] for each in found] == [one["vectors"]] * 2
    uneven = [ended["moments"]["matrices"] for ended in four[1]]  # 49 features in runs of 13
    assert uneven == [2 * 2 * 16 * features * 4 for features in (13, 13, 13, 10)]


def test_processes_harvest_what_one_does(place, two):
    one = train({"harvest_in": str(place / "alone" / "whole"), "dtype": "int8"})
    assert stored(place / "two" / "whole") == stored(place / "alone" / "whole")
    ran = [ended["harvest"]["ran"] for ended in two[1]]
    assert sum(ran) == one["ran"]
    assert min(ran) >= 6  # of 12 batches; the first looks at what is there besides


def test_a_harvest_that_was_stopped_goes_on_in_another_number_of_processes(place, two):
    for rank in (0, 1):
        assert [ended[f"harvest-signal-{rank}"]["error"] for ended in two[1]] in (
            ["KeyboardInterrupt"] * 2,
            ["KeyboardInterrupt", "NeuronMapError"],
        )
    train({"harvest_in": str(place / "alone" / "signalled"), "dtype": "auto"})
    assert train({"harvest_in": str(place / "two" / "signalled"), "dtype": "auto"})["ran"] < 12
    assert stored(place / "two" / "signalled") == stored(place / "alone" / "signalled")


def test_what_one_process_cannot_harvest_all_are_told(two):
    first, other = (ended["harvest-broken"] for ended in two[1])
    assert first == {**first, "error": "InputError", "message": "This model is broken.\n  Mend it."}
    assert other["error"] == "NeuronMapError"


@pytest.mark.parametrize("name", ["topk-streamed", "topk-streamed-wide", "topk-streamed-ahead"])
def test_two_processes_stream_what_one_does_and_each_runs_the_model_over_half(place, alone, two, name):
    alike(alone / "topk-streamed", two[0] / name)
    whole = int((place / "contexts").read_text())
    shares = [ended[name]["contexts"] for ended in two[1]]
    ahead = 48 if name.endswith("ahead") else 8  # a thread: a bucket of 20 contexts, the ring of batches, and a round
    assert whole <= sum(shares) <= whole + ahead
    assert abs(shares[0] - shares[1]) <= 4  # contexts in a block


def test_four_processes_stream_what_one_does(alone, four):
    alike(alone / "topk-streamed", four[0] / "topk-streamed-ahead")
    shares = [ended["topk-streamed-ahead"]["contexts"] for ended in four[1]]
    assert max(shares) - min(shares) <= 4
    assert sum(shares) <= int((alone.parents[1] / "contexts").read_text()) + 56


def test_a_streamed_run_goes_on_in_another_number_of_processes(place, alone, two, four):
    assert [ended["topk-streamed-left"]["error"] for ended in two[1]] == ["Interrupted"] * 2
    alike(alone / "topk-streamed", two[0] / "topk-streamed-stopped")  # 1 -> 2
    alike(alone / "topk-streamed", four[0] / "topk-streamed-left")  # 2 -> 4
    back = place / "back" / "runs" / "topk-streamed-left"
    shutil.copytree(two[0] / "topk-streamed-left", back)
    assert "error" not in train(streamed(place / "back", "topk-streamed-left", resume=True))  # 2 -> 1
    alike(alone / "topk-streamed", back)


def test_a_signal_stops_all_while_they_wait_for_a_bucket(place, alone, two):
    name = "topk-streamed-waiting"
    said = [ended[name]["message"] for ended in two[1]]
    assert "a signal to another process after step 9" in said[0]  # two buckets hold 9 batches
    assert "SIGTERM after step 9" in said[1]
    assert [ended[name]["contexts"] for ended in two[1]] == [
        24,
        24,
    ]  # 12 blocks of 4: the third bucket was to end with the 15th
    back = place / "back" / "runs" / name
    shutil.copytree(two[0] / name, back)
    assert "error" not in train(streamed(place / "back", name, resume=True))
    alike(alone / "topk-streamed", back)


@pytest.mark.parametrize("name", ["topk-streamed-broken", "topk-streamed-broken-ahead"])
def test_a_model_that_fails_in_one_process_fails_in_all_at_the_batch_that_needs_it(two, name):
    found = [ended[name] for ended in two[1]]
    assert [(one["error"], one["message"]) for one in found] == [("InputError", "This model is broken.")] * 2
    steps = [len(curve(two[0] / each)) for each in ("topk-streamed-broken", "topk-streamed-broken-ahead")]
    assert steps[0] == steps[1] > 0  # however far a thread was ahead


def test_who_leaves_a_stream_is_not_waited_for(two):
    first, last = (ended["part"] for ended in two[1])
    assert last["given"] == 3
    assert first["error"] == "NeuronMapError"
    assert "Another process reads no activations any more" in first["message"]
    assert first["given"] >= 3


@pytest.mark.parametrize("k", KS)
def test_the_largest_of_each_row_of_all_processes_with_ties_to_the_first(two, k):
    expected = select_top_k(torch.tensor(ROWS), k)
    found = [tuple(at) for ended in two[1] for at in ended[f"rows-{k}"]["at"]]
    assert sorted(found) == sorted(zip(expected.row_N.tolist(), expected.feature_N.tolist(), strict=True))


def test_configurations_name_what_several_processes_cannot_do():
    from neuronmap.errors import ConfigError
    from neuronmap.training.parallel.split import require_splittable
    from neuronmap.training.parallel.team import Team

    fields = {"architecture": "topk", "k": 4, "hidden_dim": 48, "batch_size": 3, "context_length": 33}
    require_splittable(SAEConfig(**fields), Team(0, 3))
    for more, said in (
        ({"batch_size": 1, "context_length": 32}, "batch_size to a multiple of 3"),
        ({"device": "cuda:0"}, "one device for 3 processes"),
        ({"feature_ranks": 2}, "divisor of 3"),
        ({"feature_ranks": 3, "hidden_dim": 49}, "multiple of 3"),
        ({"feature_ranks": 3, "architecture": "lista"}, "splits_features"),
        (
            {"feature_ranks": 3, "architecture": "matryoshka", "architecture_options": {"sort_features": True}},
            "sort_features",
        ),
    ):
        with pytest.raises(ConfigError) as refused:
            require_splittable(SAEConfig(**{**fields, **more}), Team(0, 3))
        assert said in f"{refused.value.message} {refused.value.hint}"
        require_splittable(SAEConfig(**{**fields, **more}), Team(), ranks_asked=False)


def test_one_process_refuses_to_share_features_unless_it_goes_on_with_a_run(place, tmp_path):
    refused = train(job(tmp_path, "topk", 2) | {"rows": str(place / "rows.pt")})
    assert refused == {"error": "ConfigError", "message": "feature_ranks = 2, but there is one process."}
    assert not (tmp_path / "runs").exists()
    assert train(job(tmp_path, "topk", stop_at=4) | {"rows": str(place / "rows.pt")})["error"] == "Interrupted"
    again = job(tmp_path, "topk", resume=True) | {"rows": str(place / "rows.pt")}
    assert train({**again, "feature_ranks": 2}) == refused
    assert "error" not in train({**again, "feature_ranks": 1})
