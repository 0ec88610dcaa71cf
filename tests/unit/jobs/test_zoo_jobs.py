"""Jobs between the library and the zoo: publish, pull and import run in processes of their own and give the same weights."""

from __future__ import annotations

import json
import shutil

import torch

from neuronmap import SAEModelHub
from neuronmap.hub.formats import export_sae
from neuronmap.interpretation.labels import Author, Label, stamp
from neuronmap.interpretation.labels.book import LabelBook
from neuronmap.jobs.kinds.import_sae import incoming_folder
from neuronmap.saes import get_architecture
from neuronmap.saes.metadata import BundleMetadata
from neuronmap.zoo import Zoo
from neuronmap.zoo.packing import pack_labels

ADA = Author(kind="person", name="Ada")


def made(hub: SAEModelHub) -> str:
    """A small SAE in the library."""
    owner = get_architecture("topk")
    sae = owner(16, 32, owner.Options(k=4))
    sae.initialise(torch.zeros(16), torch.Generator().manual_seed(0))
    hook = {"name": "layers.1.residual", "layer": 1, "component": "residual", "width": 16}
    return hub.register((sae, BundleMetadata(model={"name": "tiny"}, hook=hook)), name="small").id


def test_publish_pull_and_import_in_turn(queue, supervisor, reaches, home):
    hub = SAEModelHub()
    name = made(hub)
    folder = incoming_folder() / "here"
    export_sae([name], "dictionary_learning", folder)
    supervisor.start()
    published = queue.submit("publish", {"sae": name, "reference": "local/small@1.0", "licence": "mit"})
    [version] = reaches(published.id, "finished").result["published"]
    assert version["reference"] == "local/small@1.0"

    pulled = reaches(queue.submit("pull", {"reference": "local/small"}).id, "finished")
    assert pulled.result["sae"] == "local/small"
    assert hub.get("local/small").weights_digest == hub.get("small").weights_digest

    weights = hub.get("small").weights_digest
    label = Label(sae=weights, feature=3, author=ADA, at=stamp(), text="rivers", method="by hand")
    lines = home / "labels.jsonl"
    lines.write_text(json.dumps(label.to_dict()))
    with Zoo() as zoo:
        zoo.publish(pack_labels(lines, method="people", sae_weights=weights), "ada/labels@1.0", licence="CC0-1.0")
    merged = reaches(queue.submit("pull", {"reference": "ada/labels"}).id, "finished")
    assert (merged.result["sae"] in ("small", "local/small"), merged.result["labels"]) == (True, 1)
    with LabelBook.open() as book:
        assert [held.label for held in book.labels(weights)] == [label]

    args = {"source": str(folder), "name": "back", "prove": False, "remove_source": True}
    imported = reaches(queue.submit("import", args).id, "finished")
    assert imported.result["sae"] == "back"
    assert imported.result["verdicts"] == ["Not tried: it was not asked for."]
    assert not folder.exists()
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(hub.load("back")(x), hub.load("small")(x), atol=1e-5)
    assert home.is_dir()
    shutil.rmtree(incoming_folder(), ignore_errors=True)
