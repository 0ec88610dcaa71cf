"""Layer and component of a job are checked against the model's configuration before it is queued, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from neuronmap.models.hooks import COMPONENTS
from neuronmap.web import places

SETTINGS = {"model_name": "tiny", "corpus": "sotu", "layer": 1, "hidden_dim": 32, "k": 4, "max_tokens": 3000}


def train(client: TestClient, **settings: Any) -> Any:
    body = {"settings": {name: value for name, value in {**SETTINGS, **settings}.items() if value is not None}}
    return client.post("/api/sae/train", json=body)


@pytest.mark.parametrize(
    ("settings", "field", "said"),
    [
        ({"layer": 4}, "settings.layer", "The model has layers 0 to 3."),
        ({"layer": None}, "settings.layer", "needs a layer"),
        ({"model_name": "smollm2-135m", "layer": 30}, "settings.layer", "layers 0 to 29"),
        ({"component": "atention"}, "settings.component", "Did you mean attention"),
        ({"layr": 2}, "settings.layr", "Did you mean layer"),
        ({"layer": -1}, "settings.layer", "greater than or equal to 0"),
        ({"batch_size": "many"}, "settings.batch_size", "integer"),
    ],
)
def test_a_place_that_the_model_does_not_have_is_refused(
    client: TestClient, settings: dict[str, Any], field: str, said: str
) -> None:
    answer = train(client, **settings)
    error = answer.json()["error"]
    assert answer.status_code == 422
    assert [one["field"] for one in error["fields"]] == [field]
    assert said in f"{error['message']} {error['hint']}"
    assert client.get("/api/jobs").json()["jobs"] == []


@pytest.mark.parametrize(
    "settings",
    [{"layer": 3}, {"layer": "3"}, {"layer": None, "component": "transformer.h.9:out"}, {"component": "mlp_hidden"}],
)
def test_a_place_that_may_be_is_left_to_the_job(client: TestClient, settings: dict[str, Any]) -> None:
    assert train(client, **settings).status_code == 202


def test_the_form_says_it_beside_the_field(client: TestClient) -> None:
    answer = client.post("/train", data={**{name: str(value) for name, value in SETTINGS.items()}, "layer": "7"})
    assert answer.status_code == 422
    assert "The model has layers 0 to 3." in answer.text


def test_faults_of_the_trackers_settings_and_saes_are_named(client: TestClient, library: Path) -> None:
    def faults(**changes: Any) -> list[str]:
        body = {"model": "tiny", "concepts": ["tense"], "preset": "quick", **changes}
        answer = client.post("/api/sae/track_abstractions", json=body)
        assert answer.status_code == 422, answer.text
        return [one["field"] for one in answer.json()["error"]["fields"]]

    assert faults(settings={"items": 3, "seed": -1}) == ["settings.items", "settings.seed"]
    assert faults(settings={"itms": 3}) == ["settings.itms"]
    config = library / "second" / "cfg.json"
    document = json.loads(config.read_text())
    document["metadata"]["neuronmap"]["hook"]["layer"] = 9
    config.write_text(json.dumps(document))
    assert faults(saes=["first", "second"]) == ["saes.1"]


def test_what_configurations_call_their_blocks(tmp_path: Path) -> None:
    def blocks(config: Any) -> int | None:
        (tmp_path / "config.json").write_text(json.dumps(config) if not isinstance(config, str) else config)
        return places.blocks_of(str(tmp_path))

    assert blocks({"num_hidden_layers": 12}) == 12
    assert blocks({"n_layer": 6}) == 6
    assert blocks({"text_config": {"num_hidden_layers": 26}}) == 26
    for unclear in ({}, [], "{", {"num_hidden_layers": "many"}):
        assert blocks(unclear) is None
    assert places.blocks_of("owner/not-on-this-machine") is None
    assert places.blocks_of("no/such/folder") is None


def test_the_components_are_those_of_models() -> None:
    assert places.COMPONENTS == COMPONENTS


def test_checking_loads_no_torch() -> None:
    code = (
        "import sys; from neuronmap.web.places import place_fault;"
        "assert place_fault({'model_name': 'smollm2-135m', 'layer': 99}); assert place_fault({'component': 'x'});"
        "place_fault({'model_name': 'owner/name', 'layer': 3}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
