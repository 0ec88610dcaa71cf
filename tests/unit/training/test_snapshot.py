"""Snapshots of features while they form: what they count, where their examples are, that they change nothing and survive a resume."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from neuronmap import SAEConfig, SAETrainer
from neuronmap.errors import Interrupted
from neuronmap.models import LanguageModel, capture, resolve_hook
from neuronmap.progress import SilentProgress
from neuronmap.saes.density import density_bins
from neuronmap.training import snapshot as snapshots
from neuronmap.training.session import Session
from neuronmap.training.snapshot import Snapshots

TEXTS = [
    f"Year {year}: the river froze 日本, and {year % 17} children 👩‍👩‍👧 walked across <script>it</script> to school."
    for year in range(1700, 1900)
]


def train(config: SAEConfig, source: Any, **more: Any) -> Any:
    return SAETrainer(config, progress=SilentProgress()).train(source, **more)


def documents(folder: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    whole = json.loads((folder / "snapshot.json").read_text())
    return whole, [json.loads(line) for line in (folder / "snapshots.jsonl").read_text().splitlines()]


def timeless(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "time"}


@pytest.fixture(scope="module")
def on_text(tiny_llama: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(tmp_path_factory.mktemp("home")))
        config = SAEConfig(
            layer=2, k=4, hidden_dim=64, context_length=32, batch_size=8, learning_rate=3e-3, eval_every_steps=5,
            num_epochs=2.0,
        )  # fmt: skip
        yield train(config, TEXTS, model=tiny_llama)


@pytest.mark.parametrize("architecture", ["batchtopk", "relu"])
def test_counts_are_those_of_the_codes(architecture: str, small: dict[str, Any], rows: torch.Tensor) -> None:
    k = {"k": 4} if architecture == "batchtopk" else {"sparsity_penalty": 0.05}
    fields = {name: value for name, value in small.items() if name != "k"}
    config = SAEConfig(**{**fields, **k, "architecture": architecture, "eval_every_steps": 43})
    held = rows[-600:]
    run = SAETrainer(config, progress=SilentProgress())
    seen: dict[str, Any] = {}
    take = Snapshots.take

    def watch(self: Snapshots, session: Session, most: int) -> Any:
        measured = take(self, session, most)
        seen["codes"] = session.sae.encode(held * session.scale).detach()
        seen["dead"] = session.dead.count()
        return measured

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Snapshots, "take", watch)
        result = run.train(rows[:-600], heldout=held)
    whole, lines = documents(result.run.folder)
    f_RF = seen["codes"]
    edges, counts, never = density_bins((f_RF != 0).sum(0).numpy(), 600)
    assert whole["density"] == {"edges": edges.tolist(), "counts": counts.tolist(), "never": never}
    assert whole["l0"]["mean"] == pytest.approx(float((f_RF != 0).sum(1).float().mean()))
    assert sum(whole["l0"]["counts"]) == whole["l0"]["rows"]
    assert (whole["step"], whole["steps"], whole["tokens"], whole["rows"], whole["dead"]) == (
        43, 43, 43 * 256, 600, seen["dead"],
    )  # fmt: skip
    assert lines[-1]["counts"] == counts.tolist()
    assert len(whole["features"]) == 8
    for followed in whole["features"]:
        column_R = f_RF[:, followed["feature"]]
        assert followed["density"] == pytest.approx(float((column_R != 0).float().mean()))
        scale = float(result.metadata.input_scale)
        assert followed["max"] == pytest.approx(float(column_R.detach().max()) / scale, rel=1e-4)
        assert followed["examples"] == []  # the rows' text is not known


def test_examples_are_where_the_feature_is_strongest(on_text: Any, tiny_llama: LanguageModel) -> None:
    whole, lines = documents(on_text.run.folder)
    assert [line["step"] for line in lines] == [*range(5, on_text.metadata.steps, 5), on_text.metadata.steps]
    tokens = on_text.data.heldout_tokens
    hook = resolve_hook(tiny_llama, 2)
    fired = [followed for followed in whole["features"] if followed["examples"]]
    assert fired
    for followed in fired:
        contexts = [example["context"] for example in followed["examples"]]
        assert len(contexts) == len(set(contexts)) <= 3
        assert followed["examples"][0]["activation"] == followed["max"]
        for example in followed["examples"]:
            batch = tokens.contexts(example["context"], example["context"] + 1)
            start, stop = example["start"], example["start"] + len(example["token_ids"])
            assert batch.input_ids[0, start:stop].tolist() == example["token_ids"]
            assert example["activations"][example["peak"]] == example["activation"]
            # what the pieces say is the text of these tokens
            joined = "".join(piece["text"] for piece in example["pieces"] if not piece["special"])
            assert joined.strip("\ufffd") in tiny_llama.tokenizer.decode(example["token_ids"]).replace("</s>", "")
            x_TD = capture(tiny_llama, torch.from_numpy(batch.input_ids), [hook])[hook.name][0]
            # the SAE of the end with the threshold of the end: the same feature, on the raw scale
            peak = x_TD[start + example["peak"]]
            pre = float((peak - on_text.sae.b_dec) @ on_text.sae.W_enc[:, followed["feature"]])
            pre += float(on_text.sae.b_enc[followed["feature"]])
            assert example["activation"] == pytest.approx(pre, rel=2e-2)


def test_followed_features_stay_until_they_die(on_text: Any) -> None:
    _, lines = documents(on_text.run.folder)
    for before, after in pairwise(lines):
        kept = [feature for feature in before["features"] if feature in after["features"]]
        assert after["features"][: len(kept)] == kept  # in their order; new ones come behind
    view = snapshots._View([3, 5], np.arange(64) == 5, np.random.default_rng(0))
    assert view.followed == [3]


def test_training_is_the_same_without(
    small: dict[str, Any], rows: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SAEConfig(**{**small, "eval_every_steps": 4})
    with_snapshots = train(config, rows)
    monkeypatch.setattr(Snapshots, "take", lambda self, session, most: session.glance(most))
    without = train(config, rows)
    for name, tensor in with_snapshots.sae.state_dict().items():
        assert torch.equal(tensor, without.sae.state_dict()[name]), name
    same = [[{n: v for n, v in row.items() if "second" not in n and "share" not in n} for row in run.history]
            for run in (with_snapshots, without)]  # fmt: skip
    assert same[0] == same[1]


def test_a_resumed_run_takes_them_again(
    small: dict[str, Any], rows: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SAEConfig(**{**small, "eval_every_steps": 4, "checkpoint_every_steps": 10})
    whole = train(config, rows).run.folder
    real = Session.train_step

    def stopped(self: Session) -> Any:
        if self.step == 17:  # the newest checkpoint is of step 10, the newest snapshot of step 16
            raise Interrupted("killed")
        return real(self)

    monkeypatch.setattr(Session, "train_step", stopped)
    trainer = SAETrainer(config, progress=SilentProgress(), run_folder=whole.with_name("broken"))
    with pytest.raises(Interrupted):
        trainer.train(rows)
    broken = whole.with_name("broken")
    assert documents(broken)[0]["step"] == 16
    with open(broken / "snapshots.jsonl", "a") as file:
        file.write('{"step": 20, "tok')  # a kill in the middle of a line
    monkeypatch.setattr(Session, "train_step", real)
    SAETrainer.resume(broken, rows, progress=SilentProgress())
    assert documents(broken)[1] == documents(whole)[1]
    assert timeless(documents(broken)[0]) == timeless(documents(whole)[0])
