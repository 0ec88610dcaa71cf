"""A sweep trains each SAE as if it were alone, and loses none when it is stopped or when one of them diverges."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch

from neuronmap.errors import ConfigError, InputError, Interrupted, MismatchError, TrainingDivergedError
from neuronmap.progress import SilentProgress
from neuronmap.saes import load_sae
from neuronmap.training import SAEConfig, SAETrainer, SweepConfig
from neuronmap.training.sweeping.record import SweepRun as SAESweepRun
from neuronmap.training.sweeping.sweep import SAESweep, SweepResult

MIXED: list[dict[str, Any]] = [
    {"architecture": "topk", "k": 4, "seed": 0},
    {"architecture": "topk", "k": 4, "seed": 1, "learning_rate": 1e-3},
    {"architecture": "batchtopk", "k": 6, "seed": 2, "hidden_dim": 80},
    {"architecture": "jumprelu", "target_l0": 4.0, "learning_rate": 2e-3, "max_steps": 31},
    {"architecture": "matryoshka", "k": 4, "seed": 3},
    {"architecture": "relu", "sparsity_penalty": 0.05, "hidden_dim": 32, "seed": 4},
    {"architecture": "gated", "sparsity_penalty": 0.05},
    {"architecture": "lista", "k": 4, "products": "dense", "kernels": "torch"},
]


@pytest.fixture
def base(small: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in small.items() if name not in ("k", "architecture")}


@pytest.fixture
def mixed(base: dict[str, Any]) -> SweepConfig:
    return SweepConfig(base={**base, "data_seed": 7}, member=MIXED)


def sweep(members: Any, rows: Any, **more: Any) -> SweepResult:
    made = SAESweep(members, progress=SilentProgress(), folder=more.pop("folder", None))
    return made.train(rows, **more)


def alone(config: SAEConfig, rows: Any, **more: Any) -> Any:
    return SAETrainer(config, progress=SilentProgress()).train(rows, **more)


def weights(result: SweepResult) -> dict[str, bytes]:
    """The bundle's weights of every finished member."""
    return {
        one.name: (one.run.bundle / "sae_weights.safetensors").read_bytes()
        for one in result.members
        if one.status == "finished"
    }


def timeless(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    times = ("seconds", "tokens_per_second", "waiting_share")
    return [{name: value for name, value in row.items() if name not in times} for row in rows]


def test_every_member_is_as_if_trained_alone(mixed, rows):
    """All architectures at once, with other seeds, rates, widths, lengths, kernels: weights and history, bit for bit."""
    together = sweep(mixed, rows)
    assert [one.status for one in together.members] == ["finished"] * len(MIXED)
    assert together.members[3].step == 31
    for member, config in zip(together.members, mixed.members(), strict=True):
        single = alone(config, rows)
        theirs = (single.bundle / "sae_weights.safetensors").read_bytes()
        assert theirs == weights(together)[member.name], member.name
        assert timeless(single.history) == timeless(_history(member))
        assert member.metrics["explained_variance"] == single.metrics["summary"]["explained_variance"]


def _history(member: Any) -> list[dict[str, float]]:
    from neuronmap.training.history import read_lines

    return read_lines(member.run.history_path)


TEXTS = [f"Speech {i}. The river froze in winter and the children walked to school. " * (6 + i % 5) for i in range(40)]
HOOKED = {"context_length": 32, "batch_size": 4, "num_epochs": 3, "hidden_dim": 48, "k": 4, "architecture": "topk"}


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "stored"])
def test_hooks_of_one_pass_are_as_if_trained_alone(stream, tiny_gpt2):
    """Layers and components, one of another width, from one pass of the model; harvested alone they give the same bits."""
    grid = SweepConfig(
        base={**HOOKED, "stream": stream, "learning_rate": 3e-3, "max_steps": 20},
        grid={"layer": [1, 2], "component": ["residual", "mlp_hidden"], "seed": [0, 5]},
    )
    together = sweep(grid, TEXTS, model=tiny_gpt2)
    for config in (grid.members()[1], grid.members()[6]):
        single = alone(config, TEXTS, model=tiny_gpt2)
        assert (single.bundle / "sae_weights.safetensors").read_bytes() == weights(together)[config.name]
    hooks = {load_sae(one.run.bundle).d_in for one in together.members}
    assert hooks == {32, 128}


class _Signals(SilentProgress):
    """Sends this process a signal when the bar has moved that many times."""

    def __init__(self, moves: int, number: int = signal.SIGINT) -> None:
        self.left, self.number = moves, number

    def task(self, title: str, total: int | None, unit: str) -> Any:
        from contextlib import nullcontext

        return nullcontext(self if title == "Training" else _Still())

    def advance(self, amount: int, **figures: str) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


class _Still:
    def advance(self, amount: int, **figures: str) -> None:
        pass


def interrupted(members: Any, rows: Any, moves: int, folder: Any, number: int = signal.SIGINT, **more: Any) -> None:
    with pytest.raises(Interrupted, match="SAEs in training; everything is saved") as stopped:
        SAESweep(members, progress=_Signals(moves, number), folder=folder).train(rows, **more)
    assert str(folder) in stopped.value.hint


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_all_and_resume_gives_the_same_bits(number, mixed, rows, tmp_path):
    """Stopped when one member has left already (31 steps) and the others have not."""
    whole = sweep(mixed, rows)
    interrupted(mixed, rows, 37, tmp_path / "sweep", number)
    resumed = SAESweep.resume(tmp_path / "sweep", rows, progress=SilentProgress())
    assert weights(resumed) == weights(whole)
    for one, other in zip(resumed.members, whole.members, strict=True):
        assert timeless(_history(one)) == timeless(_history(other))
    with pytest.raises(InputError, match="none of its members has anything left"):
        SAESweep.resume(tmp_path / "sweep", rows, progress=SilentProgress())


def test_checkpoints_of_different_steps_go_on_from_one_place_in_the_stream(mixed, rows, tmp_path):
    """A kill between two members' checkpoints: those that are further wait for the stream; one has none at all and begins anew."""
    import shutil

    whole = sweep(mixed, rows)
    interrupted(mixed, rows, 24, tmp_path / "sweep")
    members = SAESweepRun(tmp_path / "sweep").members()
    for member, newest in ((members[1], "step-00000024"), (members[4], "step-00000024")):
        shutil.rmtree(member.run.checkpoints / newest)
    shutil.rmtree(members[5].run.folder)
    resumed = SAESweep.resume(tmp_path / "sweep", rows, progress=SilentProgress())
    assert weights(resumed) == weights(whole)


def test_a_member_resumes_alone(mixed, rows, tmp_path):
    """Its run is an ordinary one: the trainer goes on with it and gives the same bits."""
    whole = sweep(mixed, rows)
    interrupted(mixed, rows, 20, tmp_path / "sweep")
    member = SAESweepRun(tmp_path / "sweep").members()[2]
    single = SAETrainer.resume(member.run, rows, progress=SilentProgress())
    assert (single.bundle / "sae_weights.safetensors").read_bytes() == weights(whole)[member.name]


def test_a_streamed_sweep_of_two_hooks_resumes(tiny_gpt2, tmp_path):
    grid = SweepConfig(base={**HOOKED, "stream": True}, grid={"layer": [1, 3], "seed": [0, 1]})
    whole = sweep(grid, TEXTS, model=tiny_gpt2)
    interrupted(grid, TEXTS, 11, tmp_path / "sweep", model=tiny_gpt2)
    resumed = SAESweep.resume(tmp_path / "sweep", TEXTS, model=tiny_gpt2, progress=SilentProgress())
    assert weights(resumed) == weights(whole)


def test_a_member_that_diverges_leaves_and_disturbs_nobody(mixed, base, rows):
    broken = {"architecture": "topk", "k": 4, "learning_rate": 1e30, "clip_norm": None, "name": "broken"}
    with_it = sweep(SweepConfig(base={**base, "data_seed": 7}, member=[MIXED[0], broken, *MIXED[1:]]), rows)
    without = sweep(mixed, rows)
    member = with_it.members[1]
    assert (member.name, member.status, member.step) == ("broken", "diverged", 1)
    assert "diverged at step 1" in member.error
    assert list(weights(with_it).values()) == list(weights(without).values())
    with pytest.raises(InputError, match="No finished member of the sweep is called 'broken'"):
        with_it.load("broken")
    assert with_it.load(with_it.members[0].name).d_sae == 48


def test_all_diverged_is_an_error(base, rows):
    config = {**base, "k": 4, "learning_rate": 1e30, "clip_norm": None}
    with pytest.raises(TrainingDivergedError, match="All 2 members of the sweep diverged"):
        sweep(SweepConfig(base=config, grid={"seed": [0, 1]}), rows)


def test_memory_of_a_step_does_not_grow_with_the_number_of_members(base, rows, monkeypatch):
    """Scratch space and gradients are those of the largest member, in one place."""
    from neuronmap.training.sweeping import sweep as module

    made: list[Any] = []

    class Recorded(module.Turns):
        def __init__(self, device: torch.device) -> None:
            super().__init__(device)
            made.append(self)

    monkeypatch.setattr(module, "Turns", Recorded)
    fields = {**base, "architecture": "topk", "k": 4, "max_steps": 5}
    del fields["hidden_dim"]
    sweep(SweepConfig(base=fields, grid={"hidden_dim": [64], "seed": [0]}), rows)
    sweep(SweepConfig(base=fields, grid={"hidden_dim": [16, 32, 64], "seed": [0, 1, 2, 3]}), rows)
    one, many = (turns.nbytes for turns in made)
    assert (
        many < 1.2 * one
    )  # twelve SAEs beside one; what is left depends on how many features happen to be active or dead
    assert one >= 2 * 16 * 64 * 4  # the gradients are among it


def test_data_of_another_sweep_is_refused(mixed, rows, tmp_path):
    interrupted(mixed, rows, 5, tmp_path / "sweep")
    with pytest.raises(MismatchError, match="other data"):
        SAESweep.resume(tmp_path / "sweep", rows * 2, progress=SilentProgress())
    with pytest.raises(InputError, match="give the same again"):
        SAESweep.resume(tmp_path / "sweep", progress=SilentProgress())
    with pytest.raises(InputError, match="There is no sweep nothing"):
        SAESweep.resume("nothing")
    with pytest.raises(InputError, match="already holds a sweep"):
        sweep(mixed, rows, folder=tmp_path / "sweep")


def test_rows_of_one_hook_cannot_train_two(base, rows):
    with pytest.raises(ConfigError, match="of one hook, but the SAEs have 2"):
        sweep(SweepConfig(base={**base, "k": 4}, grid={"layer": [1, 2]}), rows)


def test_configurations_without_a_grid(base, rows):
    """Any list of configurations that share a stream; a difference in what it is made of is named."""
    configs = [SAEConfig(**base, k=k, seed=k, data_seed=0) for k in (2, 4)]
    assert [one.status for one in sweep(configs, rows).members] == ["finished", "finished"]
    with pytest.raises(ConfigError, match=r"data_seed must be the same.*2 for member 1 and 4 for member 2"):
        SAESweep([SAEConfig(**base, k=k, seed=k) for k in (2, 4)])
    with pytest.raises(ConfigError, match="SAESweep takes a SweepConfig or SAEConfigs, got dict"):
        SAESweep([dict(base)])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="at least one member"):
        SAESweep([])


def test_members_share_the_least_batch_when_it_is_left_out(base, rows):
    """Passes of another number would each take another; a stream has one. What it is stands in every member's settings."""
    left_out = {**base, "batch_size": None, "data_seed": 7}
    members = SweepConfig(base=left_out, member=[{"k": 4, "max_steps": 3}, {"k": 4, "num_epochs": 4.0}])
    apart = [config.for_rows(len(rows)).batch_rows for config in members.members()]
    assert apart == [4096, 512]
    together = sweep(members, rows)
    assert [member.config.batch_rows for member in together.members] == [512, 512]
    for member in together.members:
        theirs = (alone(member.config, rows).bundle / "sae_weights.safetensors").read_bytes()
        assert theirs == weights(together)[member.name]
