"""A sweep as a user types it: dry run, training, the library, the plot, what is refused, and going on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import pytest

from neuronmap import SAEModelHub

FILE = """
[base]
model_name = "{model}"
corpus = "{text}"
hidden_dim = 64
context_length = 32
batch_size = 4
learning_rate = 0.003
max_tokens = 8192
{more}
name = "many/{{architecture}}-l{{layer}}-{{k}}"

[grid]
layer = [1, 2]
architecture = ["topk", "batchtopk"]
k = [4]

[[member]]
layer = 2
architecture = "jumprelu"
target_l0 = 4
max_steps = 20
name = "many/jump"
"""
NAMES = ["many/topk-l1-4", "many/batchtopk-l1-4", "many/topk-l2-4", "many/batchtopk-l2-4", "many/jump"]


@pytest.fixture
def sweep_file(tmp_path, model_folder, text_folder):
    def made(more: str = ""):
        file = tmp_path / "sweep.toml"
        file.write_text(FILE.format(model=model_folder, text=text_folder, more=more))
        return file

    return made


def test_from_a_file_to_evaluated_saes_and_a_plot(neuronmap, sweep_file, tmp_path):
    file = sweep_file()
    planned = neuronmap("sae", "sweep", file, "--dry-run", "--json").document("sae sweep")["plan"]
    assert [one["name"] for one in planned["members"]] == NAMES
    assert planned["hooks"] == 2
    assert planned["parameters"] == sum(one["parameters"] for one in planned["members"]) > 5 * 2 * 32 * 64
    assert "up to 62 steps of 128 activations" in neuronmap("sae", "sweep", file, "--dry-run").out

    typed = neuronmap("sae", "sweep", file, "--json", "--out", tmp_path / "plot.svg")
    document = typed.document("sae sweep")
    assert [(one["sae"], one["status"], one["error"]) for one in document["members"]] == [
        (name, "finished", "") for name in NAMES
    ]
    assert document["members"][4]["step"] == 20
    taken = neuronmap("sae", "sweep", file, "--dry-run")
    assert (taken.code, "many/topk-l1-4" in taken.err) == (6, True), "a dry run refuses names that the run would refuse"
    assert all(one["ce_score"] is not None for one in document["members"])
    assert any(one["front"] for one in document["members"])
    entries = {one.id: one for one in SAEModelHub().list()}
    assert sorted(entries) == sorted(NAMES)
    assert entries["many/jump"].metrics["l0"] == document["members"][4]["l0"]
    drawn = ET.parse(tmp_path / "plot.svg").getroot()
    titles = [one.text for one in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert sorted(str(title).split(":")[0] for title in titles) == sorted(NAMES)

    again = neuronmap("sae", "sweep", file, "--json")
    assert (again.code, json.loads(again.out)["error"]) == (6, "already_exists")
    over = neuronmap("sae", "sweep", "--resume", document["sweep"])
    assert "every SAE that did not diverge is in the library" in over.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "There is no sweep to train"),
        (["none.toml"], "There is no sweep file none.toml"),
        (["--resume", "x", "--dry-run"], "goes on with the sweep's own settings"),
        (["--resume", "x"], "There is no sweep x"),
        (["sweep.toml", "--out", "plot.png"], "the plot is written as SVG"),
    ],
)
def test_what_cannot_be_is_said(neuronmap, arguments, says):
    typed = neuronmap("sae", "sweep", *arguments)
    assert typed.code != 0
    assert says in typed.err


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_gives_the_same_bits(neuronmap, sweep_file, home):
    file = sweep_file("checkpoint_every_steps = 25\nnum_epochs = 8")
    command = [sys.executable, "-m", "neuronmap", "sae", "sweep", str(file), "--no-evaluate", "--quiet"]
    child = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 240
    while not list(home.glob("runs/*/*/checkpoints/step-00000025")) and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    folder = next(home.glob("runs/*/sweep.json")).parent
    assert json.loads((folder / "sweep.json").read_text())["status"] == "training"
    went_on = neuronmap("sae", "sweep", "--resume", folder.name, "--json").document("sae sweep")
    assert [one["sae"] for one in went_on["members"]] == NAMES
    killed = {one.id: one.weights_digest for one in SAEModelHub().list()}
    for name in NAMES:
        SAEModelHub().delete(name)
    assert neuronmap("sae", "sweep", file, "--no-evaluate", "--quiet").code == 0
    assert {one.id: one.weights_digest for one in SAEModelHub().list()} == killed
