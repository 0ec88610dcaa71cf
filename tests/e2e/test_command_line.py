"""The command line as a new user types it: train, look, evaluate, delete, and every way to get it wrong."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from neuronmap import SAEModelHub, SparseAutoencoder


def test_train_list_show_evaluate_delete(neuronmap, train_arguments):
    trained = neuronmap(*train_arguments, "--name", "first", "--json")
    assert trained.code == 0, trained.err
    document = trained.document("sae train")
    assert document["sae"]["id"] == "first"
    assert document["sae"]["metrics"]["l0"] == pytest.approx(4.0, rel=0.02)
    assert 0.0 < document["sae"]["metrics"]["explained_variance"] <= 1.0
    assert "ce_score_mean" in document["sae"]["metrics"]
    assert Path(document["run"], "history.jsonl").exists()

    listed = neuronmap("sae", "list-models")
    assert "first" in listed.out
    assert "batchtopk" in listed.out
    found = neuronmap("sae", "list-models", "--layer", "2", "--where", "l0<5", "--json").document("sae list-models")
    assert [sae["id"] for sae in found["saes"]] == ["first"]
    assert neuronmap("sae", "list-models", "--layer", "3", "--json").document("sae list-models")["saes"] == []

    shown = neuronmap("sae", "show", "first", "--verify")
    assert shown.code == 0
    assert "explained_variance" in shown.out
    assert "(verified)" in shown.out
    assert "SAE.load_from_disk" in shown.out
    assert neuronmap("sae", "show", "first", "--json").document("sae show")["core"]["protocol"]["tokens"] > 0

    again = neuronmap("sae", "evaluate", "first", "--json").document("sae evaluate")
    for name in ("explained_variance", "l0", "ce_sae", "ce_clean"):  # the same text, model and SAE: the same figures
        assert again["sae"]["metrics"][name] == pytest.approx(document["sae"]["metrics"][name], rel=1e-6)

    kept = neuronmap("sae", "delete", "first", answer="n\n")
    assert kept.code == 0
    assert SAEModelHub().get("first")
    assert neuronmap("sae", "delete", "first", "--json").document("error")["error"] == "config"
    assert neuronmap("sae", "delete", "first", "--yes", "--json").document("sae delete")["deleted"] == "first"
    assert neuronmap("sae", "show", "first").code == 6


def test_a_second_training_reuses_tokens_and_activations(neuronmap, train_arguments):
    neuronmap(*train_arguments)
    second = neuronmap(*train_arguments, "--architecture", "topk")
    assert second.code == 0
    assert "reus" in second.err.lower()
    assert len(SAEModelHub().list()) == 2


def test_a_taken_name_is_refused_before_training_unless_it_is_to_be_replaced(neuronmap, train_arguments, home):
    neuronmap(*train_arguments, "--name", "first")
    digest = SAEModelHub().get("first").weights_digest
    taken = neuronmap(*train_arguments, "--name", "first", "--set", "seed=5", "--json")
    assert (taken.code, taken.document("error")["error"]) == (6, "already_exists")
    assert len(list(home.glob("runs/*"))) == 1
    assert neuronmap(*train_arguments, "--name", "first", "--set", "seed=5", "--replace").code == 0
    assert SAEModelHub().get("first").weights_digest != digest
    assert len(SAEModelHub().list()) == 1


def test_the_library_loads_in_python(neuronmap, train_arguments):
    neuronmap(*train_arguments, "--name", "first")
    hub = SAEModelHub()
    sae = hub.load("first")
    x = torch.randn(10, 32)
    assert torch.equal(sae.encode(x), SparseAutoencoder.load(hub.get("first").path).encode(x))


def test_fine_tuning_starts_from_a_library_name(neuronmap, train_arguments):
    neuronmap(*train_arguments, "--name", "first")
    tuned = neuronmap(
        *train_arguments, "--name", "second", "--init-from", "first", "--set", "learning_rate=1e-5", "--json"
    )
    assert tuned.code == 0, tuned.err
    one, two = (SAEModelHub().load(name).W_dec for name in ("first", "second"))
    assert 0 < (one - two).abs().max() < 0.05


def test_a_recipe_is_the_same_as_flags(neuronmap, train_arguments, model_folder, text_folder, tmp_path):
    recipe = tmp_path / "run.toml"
    recipe.write_text(
        f'model_name = "{model_folder}"\nlayer = 2\ncorpus = "{text_folder}"\nk = 4\nhidden_dim = 64\n'
        "context_length = 32\nbatch_size = 4\nnum_epochs = 0.5\nlearning_rate = 1.0\n"
    )
    neuronmap(*train_arguments, "--name", "flags")
    made = neuronmap("sae", "train", "--config", recipe, "--set", "learning_rate=0.003", "--name", "recipe")
    assert made.code == 0, made.err
    assert torch.equal(SAEModelHub().load("flags").W_enc, SAEModelHub().load("recipe").W_enc)


def test_streaming_stores_no_training_activations(neuronmap, train_arguments, home):
    streamed = neuronmap(*train_arguments, "--set", "stream=true", "--name", "streamed", "--json")
    assert streamed.code == 0, streamed.err
    assert streamed.document("sae train")["sae"]["metrics"]["l0"] == pytest.approx(4.0, rel=0.02)
    assert "activations before the first step" in streamed.err
    assert "waiting for the language model" in streamed.err
    stores = list(home.glob("cache/activations/*/manifest.json"))
    assert len(stores) == 1  # the held-out rows only
    stored = neuronmap(*train_arguments, "--name", "stored", "--json").document("sae train")["sae"]["metrics"]
    for name in ("explained_variance", "l0"):
        assert streamed.document("sae train")["sae"]["metrics"][name] == pytest.approx(stored[name], rel=0.1)


def test_hooks_corpora_and_doctor(neuronmap, model_folder):
    hooks = neuronmap("models", "hooks", model_folder, "--layer", "1", "--json").document("models hooks")
    assert {h["component"]: h["width"] for h in hooks["hooks"]} == {
        "residual_pre": 32,
        "attention_heads": 32,
        "attention": 32,
        "mlp_hidden": 128,
        "mlp": 32,
        "residual": 32,
    }
    assert "transformer.h.1.mlp" in neuronmap("models", "hooks", model_folder, "--match", "*.mlp:out").out
    names = {c["name"] for c in neuronmap("corpora", "list", "--json").document("corpora list")["corpora"]}
    assert {"sotu", "pydoc"} <= names
    assert neuronmap("doctor", "--json").document("doctor")["versions"]["torch"] == torch.__version__


def test_quiet_prints_nothing(neuronmap, train_arguments):
    done = neuronmap(*train_arguments, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (["--text", "no/such/file.txt"], 2, ["no/such/file.txt"]),
        (["--layer", "9"], 3, ["9", "4"]),
        (["--component", "mpl"], 3, ["mpl", "mlp"]),
        (["--component", "model.layers.7.mlp:out", "--layer", "2"], 2, ["layer"]),
        (["--set", "input_dim=768"], 2, ["input_dim = 768", "32 wide", "Set input_dim = 32"]),
        (["--set", "hiden_dim=8"], 2, ["hiden_dim", "hidden_dim"]),
        (["--architecture", "topkk"], 2, ["topkk", "topk"]),
        (["--model", "no/such-model"], 3, ["no/such-model"]),
        (["-k", "65"], 2, ["65", "64"]),
        (["--config", "absent.toml"], 2, ["absent.toml"]),
        (["--set", "context_length=65"], 2, ["65", "64"]),
        (["--init-from", "nobody"], 6, ["nobody"]),
        (["--set", "k=8"], 2, ["--set k=8", "-k 4"]),
        (["--set", "corpus=sotu"], 2, ["--set corpus=sotu", "--text"]),
    ],
)
def test_bad_input_is_a_sentence_and_a_code(neuronmap, train_arguments, change, code, said):
    failed = neuronmap(*train_arguments, *change, "--json")
    assert failed.code == code, failed.err
    document = failed.document("error")
    for part in said:
        assert part in document["message"] + document["hint"]
    assert "Traceback" not in failed.err
    assert SAEModelHub().list() == []


def test_empty_text_is_an_error(neuronmap, train_arguments, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/nothing.txt").write_text("")
    failed = neuronmap(*train_arguments, "--text", tmp_path / "empty", "--json")
    assert (failed.code, failed.document("error")["error"]) == (2, "corpus_empty")


def test_an_unwritable_home_is_an_error(neuronmap, train_arguments, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NEURONMAP_HOME", str(tmp_path / "file" / "home"))
    failed = neuronmap(*train_arguments, "--json")
    assert (failed.code, failed.document("error")["error"]) == (4, "unwritable")


def test_a_full_disk_is_an_error_before_anything_is_written(neuronmap, train_arguments, monkeypatch):
    from neuronmap import paths

    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(paths.shutil, "disk_usage", lambda path: usage)
    failed = neuronmap(*train_arguments, "--json")
    assert (failed.code, failed.document("error")["error"]) == (4, "disk_space")


def test_a_model_that_gives_nan_is_an_error(neuronmap, train_arguments, model_folder, tmp_path, tiny_gpt2):
    import shutil

    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(model_folder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["transformer.h.1.mlp.c_proj.bias"][:] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    failed = neuronmap(*train_arguments, "--model", broken, "--json")
    assert failed.code == 2, failed.err
    assert "NaN" in failed.document("error")["message"]


@pytest.mark.parametrize("option", [["-k", "3"], ["--layer", "0"], ["--text", ""], ["--set", "k=3"]])
def test_resume_takes_no_other_settings(neuronmap, option):
    failed = neuronmap("sae", "train", "--resume", "some-run", *option, "--json")
    assert failed.code == 2
    assert option[0] in failed.document("error")["message"]
    assert "--init-from" in failed.document("error")["hint"]


def test_suites_are_kept_and_found_again(neuronmap, train_arguments, tmp_path):
    for name, seed in (("first", 0), ("second", 1)):
        neuronmap(*train_arguments, "--set", f"seed={seed}", "--name", name)
    ask = ("sae", "evaluate", "first", "--suite", "core,structure", "--suite", "stability", "--against", "second")
    ask += ("--tokens", 256, "--ce-tokens", 64, "--saebench", tmp_path / "bench.json")
    shown = neuronmap(*ask)
    assert shown.code == 0, shown.err
    for word in ("identity", "neurons", "chance", "meta_explained", "share_above_09"):
        assert word in shown.out
    again = neuronmap(*ask, "--json")
    assert again.err.count("not measured again") == 3
    document = again.document("sae evaluate")
    assert set(document["suites"]) == {"core", "structure", "stability"}
    assert document["core"] == document["suites"]["core"]["result"]["sae"]
    assert document["sae"]["metrics"]["stability_share_above_09"] < 1.0
    assert len(list((Path(document["sae"]["path"]) / "evaluations").iterdir())) == 3
    bench = json.loads((tmp_path / "bench.json").read_text())
    assert (bench["eval_type_id"], bench["sae_lens_id"]) == ("core", "first")
    plain = neuronmap("sae", "evaluate", "first", "--json").document("sae evaluate")
    assert "suites" not in plain
    assert "stability_share_above_09" in plain["sae"]["metrics"]
    refused = neuronmap("sae", "evaluate", "first", "--against", "second")
    assert refused.code != 0
    assert "--suite" in refused.err
    assert "cannot be compared with itself" in neuronmap(*ask[:7], "--against", "first").err


def test_an_sae_of_one_document_is_evaluated_on_what_training_held_out(
    neuronmap, train_arguments, text_folder, tmp_path
):
    text = tmp_path / "one.txt"
    text.write_text(" ".join(path.read_text() for path in sorted(text_folder.iterdir())))
    trained = neuronmap(*train_arguments, "--text", text, "--name", "first", "--json").document("sae train")
    again = neuronmap("sae", "evaluate", "first", "--json")
    assert again.code == 0, again.err
    for name in ("explained_variance", "ce_sae"):
        figure = again.document("sae evaluate")["sae"]["metrics"][name]
        assert figure == pytest.approx(trained["sae"]["metrics"][name], rel=1e-6)


def test_evaluation_loads_the_model_as_training_did_unless_told(neuronmap, train_arguments, monkeypatch):
    from neuronmap import models

    neuronmap(*train_arguments, "--set", "model_dtype=bfloat16", "--set", "device=cpu", "--name", "first")
    load, seen = models.load_model, []

    def watched(*args, **options):
        seen.append((options["dtype"], options["device"]))
        return load(*args, **options)

    monkeypatch.setattr(models, "load_model", watched)
    assert neuronmap("sae", "evaluate", "first").code == 0
    neuronmap("sae", "evaluate", "first", "--dtype", "float32", "--device", "cpu")
    assert seen == [("bfloat16", "cpu"), ("float32", "cpu")]


def test_a_block_or_metric_that_is_not_there_is_an_error(neuronmap, train_arguments, model_folder):
    for layer in ("99", "-1"):
        failed = neuronmap("models", "hooks", model_folder, "--layer", layer, "--json")
        assert (failed.code, failed.document("error")["error"]) == (3, "hook_point")
        assert "4 blocks" in failed.document("error")["message"]
    assert neuronmap("sae", "list-models", "--where", "foo<40").code == 0  # an empty library
    neuronmap(*train_arguments, "--no-evaluate")
    failed = neuronmap("sae", "list-models", "--where", "foo<40", "--json")
    assert failed.code == 2
    assert "explained_variance" in failed.document("error")["message"]


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "disk_space"), (errno.EACCES, "unwritable")])
def test_what_the_system_refuses_is_a_sentence(neuronmap, monkeypatch, number, code):
    def refuse(self):
        raise OSError(number, "the reason", "/some/file")

    monkeypatch.setattr(SAEModelHub, "list", refuse)
    failed = neuronmap("sae", "list-models", "--json")
    assert (failed.code, failed.document("error")["error"]) == (4, code)
    assert "/some/file" in failed.document("error")["message"]


def test_a_bug_shows_its_traceback(neuronmap, monkeypatch):
    def fail(self):
        raise OSError("a library's own")

    monkeypatch.setattr(SAEModelHub, "list", fail)
    with pytest.raises(OSError, match="a library's own"):
        neuronmap("sae", "list-models")


def test_doctor_fails_when_the_home_cannot_be_used(neuronmap, tmp_path, monkeypatch):
    from neuronmap import paths

    monkeypatch.setattr(paths.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100 << 30}))
    assert neuronmap("doctor").code == 0
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NEURONMAP_HOME", str(tmp_path / "file" / "home"))
    failed = neuronmap("doctor", "--json")
    assert failed.code == 4
    assert failed.document("doctor")["problems"]


def test_ctrl_c_in_training_then_resume_ends_in_the_library(train_arguments, neuronmap, home):
    """A real process, a real SIGINT, and the command that the message names."""
    long = [*train_arguments, "--set", "num_epochs=25", "--set", "eval_every_steps=1000000", "--name", "long"]
    child = subprocess.Popen([sys.executable, "-m", "neuronmap", *long], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(home.glob("runs/*/history.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 130, said
    assert "--resume" in said
    run = said.split("--resume")[1].split()[0]
    resumed = neuronmap("sae", "train", "--resume", run, "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.document("sae train")["sae"]["id"] == "long"
    assert "Resumed" in resumed.err


def test_help_starts_without_torch():
    program = "import sys, neuronmap.cli as c\ntry: c.app(['sae', 'train', '--help'])\nexcept SystemExit: pass\n"
    program += "sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "TERM": "dumb"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0
    assert "--resume" in done.stdout
    assert "fine-tuning" in done.stdout
    assert "sparsity_penalty" in done.stdout
    assert "runs/" in done.stdout
