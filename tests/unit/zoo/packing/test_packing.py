"""What lies on this machine becomes a manifest that the zoo takes, the same each time, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_stores import small_store
from report_by_hand import full_report

from neuronmap.abstraction.record import TrackingReport
from neuronmap.errors import DamagedError, InputError, InvalidManifestError
from neuronmap.features import FeatureStore
from neuronmap.features.storage.schema import TABLES
from neuronmap.paths import write_json
from neuronmap.progress import SilentProgress
from neuronmap.saes.metadata import read_bundle_info
from neuronmap.zoo.client.zoo import Zoo
from neuronmap.zoo.manifest import Manifest, media_type
from neuronmap.zoo.packing import (
    Package,
    bundle_origin,
    describe_pulled,
    pack,
    pack_analysis,
    pack_evaluation,
    pack_folder,
    pack_labels,
    pack_report,
    pack_sae,
)
from neuronmap.zoo.packing.package import author, utc
from neuronmap.zoo.packing.public import public_value
from neuronmap.zoo.records import AnalysisResultRecord, ExplanationsRecord, SAEModelRecord, get_kind


def record_of(package: Package):
    return get_kind(package.kind).record_type.model_validate(package.record)


@pytest.fixture
def store(tmp_path: Path, bundle: Path) -> Path:
    """A feature store of the bundle's SAE."""
    weights = read_bundle_info(bundle).metadata.weights_digest
    facts = {
        "sae": {"id": "sae", "weights_digest": weights},
        "model": {"name": "org/Tiny-LM", "hidden_size": 12, "num_layers": 4},
        "hook": {"name": "model.layers.2:out", "layer": 2, "component": "residual"},
        "corpus": {"name": "/data/ada/texts", "tokens": 60, "digest": "sha256:" + "3" * 64},
    }
    return small_store(tmp_path / "store", facts=facts)


def test_a_bundle(bundle: Path) -> None:
    package = pack_sae(bundle)
    record = record_of(package)
    assert isinstance(record, SAEModelRecord)
    assert (record.architecture, record.d_in, record.d_sae, record.k) == ("topk", 12, 48, 5)
    assert (record.model.name, record.model.revision, record.model.hidden_size) == ("org/Tiny-LM", "abc", 12)
    assert (record.hook.layer, record.hook.component, record.hook.width) == (2, "residual", 12)
    assert record.metrics == {"explained_variance": 0.8, "l0": 5.0, "mse": 0.1}
    assert record.training.steps == 7
    assert record.training.config["hidden_dim"] == 48
    assert record.compatibility.tokenizer_digest == "sha256:" + "2" * 64
    assert record.compatibility.models == ("org/Tiny-LM",)
    assert record.training.corpus is not None
    assert record.training.corpus.name == "texts", "a path of this machine is not published"
    assert package.tags == ("tiny",)
    assert set(package.files) == {"cfg.json", "sae_weights.safetensors", "metrics.json", "README.md"}
    assert package.card == "README.md"
    assert any("/data/ada/texts as texts" in note for note in package.notes), "what was changed is said"


def test_packing_twice_gives_the_same_manifest(bundle: Path, tmp_path: Path) -> None:
    with Zoo(tmp_path / "zoo", progress=SilentProgress()) as zoo:
        first, second = (zoo.prepare(pack_sae(bundle), "ada/demo@1.0", licence="MIT") for _ in range(2))
        assert first.data == second.data


def test_an_analysis(store: Path, bundle: Path) -> None:
    (store / "verified.json").write_text("{}")
    package = pack_analysis(store)
    record = record_of(package)
    assert isinstance(record, AnalysisResultRecord)
    assert (record.analysis, record.features, record.layer, record.component) == ("features", 8, 2, "residual")
    assert record.weights_digest == package.sae_weights == read_bundle_info(bundle).metadata.weights_digest
    assert record.corpus is not None
    assert record.corpus.name == "texts"
    assert record.settings["top_examples"] == 2
    assert "verified.json" not in package.files, "it is no part of the store"
    assert {"manifest.json", "features.parquet", "tokens.npy"} <= set(package.files)


def test_every_file_of_a_feature_store_is_taken() -> None:
    for name in ("manifest.json", "tokens.npy", "kept.npy", *(table.file for table in TABLES.values())):
        assert media_type(name)


def test_a_damaged_or_nameless_analysis_is_refused(tmp_path: Path, store: Path) -> None:
    with pytest.raises(InputError, match="which SAE"):
        pack_analysis(small_store(tmp_path / "nameless"))
    data = (store / "tokens.npy").read_bytes()
    (store / "tokens.npy").write_bytes(data[:-1] + b"!")
    with pytest.raises(DamagedError):
        pack_analysis(store)


def test_an_evaluation(bundle: Path, tmp_path: Path) -> None:
    record = record_of(pack_evaluation(bundle))
    assert (record.analysis, record.format) == ("evaluation", "neuronmap-metrics")
    assert record.metrics["explained_variance"] == 0.8
    from bundles import make_bundle

    with pytest.raises(InputError, match="no evaluation"):
        pack_evaluation(make_bundle(tmp_path / "bare"))


def test_a_report(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    write_json(tmp_path / "report/report.json", full_report().to_dict())
    package = pack_report(tmp_path / "report")
    record = record_of(package)
    assert record.analysis == "abstraction"
    assert len(record.concepts) == 4
    assert sum(record.metrics.values()) == 4
    assert package.created == "2026-01-01T00:00:00Z"
    assert pack(tmp_path / "report").record == package.record
    (tmp_path / "report/report.json").write_text('{"format": "neuronmap-tracking-report"}')
    with pytest.raises(DamagedError):
        pack_report(tmp_path / "report")


def test_labels(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(
        '{"feature": 3, "label": "commas", "score": 0.5}\n\n{"feature": 4, "label": "dots", "score": 1.0}\n'
    )
    package = pack_labels(file, method="people", model={"name": "tiny"})
    record = record_of(package)
    assert isinstance(record, ExplanationsRecord)
    assert (record.count, record.metrics) == (2, {"score": 0.75})
    assert list(package.files) == ["labels.jsonl"]
    for wrong in (
        '{"feature": "3", "label": "x"}',
        '{"feature": 3}',
        "[]",
        "no json",
        '{"feature": true, "label": "x"}',
        "",
    ):
        file.write_text(wrong)
        with pytest.raises(InputError):
            pack_labels(file, method="people")


def test_any_folder(tmp_path: Path) -> None:
    folder = tmp_path / "circuit"
    (folder / "graphs").mkdir(parents=True)
    (folder / "graphs" / "one.json").write_text("{}")
    (folder / ".hidden").write_text("x")
    record = {
        "format": "circuit-tracer-graph",
        "method": "attribution",
        "model": {"name": "gpt2"},
        "nodes": 3,
        "edges": 2,
    }
    package = pack(folder, "CIRCUIT", record)
    assert list(package.files) == ["graphs/one.json"]
    with pytest.raises(InvalidManifestError, match=r"record\.nodes"):
        pack_folder(folder, "CIRCUIT", {**record, "nodes": -1})
    with pytest.raises(InputError, match="no kind"):
        pack_folder(folder, "NONSENSE", record)
    with pytest.raises(InputError, match="needs a kind"):
        pack(folder, None, record)
    with pytest.raises(InputError, match="no SAE, no analysis and no report"):
        pack(folder)
    with pytest.raises(InputError, match="There is no"):
        pack(tmp_path / "nothing")


def test_what_is_recognised(bundle: Path, store: Path) -> None:
    assert pack(bundle).kind == "SAE_MODEL"
    assert pack(store).kind == "ANALYSIS_RESULT"
    with pytest.raises(InputError, match="is a SAE_MODEL, not a CIRCUIT"):
        pack(bundle, "CIRCUIT")


def test_an_analysis_finds_its_sae_by_the_weights(bundle: Path, store: Path, tmp_path: Path) -> None:
    from bundles import make_bundle

    from neuronmap.errors import NotInZooError

    with Zoo(tmp_path / "zoo", progress=SilentProgress()) as zoo:
        with pytest.raises(NotInZooError, match="Publish the SAE first"):
            zoo.publish(pack_analysis(store), "ada/features@1.0", licence="MIT")
        zoo.publish(make_bundle(tmp_path / "other", "topk", seed=5), "ada/other@1.0", licence="MIT")
        sae = zoo.publish(bundle, "ada/demo@1.0", licence="MIT")
        view = zoo.publish(pack_evaluation(bundle), "ada/demo-evaluation@1.0", licence="MIT")
        assert [one.digest for one in view.depends_on] == [sae.digest]


def test_where_what_was_pulled_belongs(bundle: Path, store: Path, tmp_path: Path) -> None:
    with Zoo(tmp_path / "zoo", progress=SilentProgress()) as zoo:
        zoo.publish(bundle, "ada/demo@1.0", licence="MIT")
        view = zoo.publish(pack_analysis(store), "ada/f@1.0", licence="MIT", depends_on={"sae": "ada/demo"})
        sae, features = zoo.pull("ada/demo", tmp_path / "a"), zoo.pull("ada/f", tmp_path / "b")
    assert describe_pulled(sae.manifest, sae.folder).belongs == "library"
    placed = describe_pulled(features.manifest, features.folder)
    assert (placed.belongs, placed.name) == ("analyses", "a" * 12)
    assert placed.weights_digest == read_bundle_info(bundle).metadata.weights_digest
    assert isinstance(features.manifest, Manifest)
    assert features.manifest.depends_on[0].role == "sae"
    assert view.used_by == 0


def test_an_origin_keeps_what_was_before() -> None:
    assert bundle_origin("a/b@1", "d", "z", None) == {"format": "zoo", "reference": "a/b@1", "digest": "d", "zoo": "z"}
    assert bundle_origin("a/b@1", "d", "z", {"format": "saelens"})["before"] == {"format": "saelens"}


def test_authors_and_times(tmp_path: Path) -> None:
    assert author("Ada Lovelace") == {"name": "Ada Lovelace"}
    assert author(" Ada <0000-0002-1825-0097>") == {"name": "Ada", "orcid": "0000-0002-1825-0097"}
    with pytest.raises(InputError):
        author("<0000-0002-1825-0097>")
    assert utc("2026-01-01T12:00:00+02:00") == "2026-01-01T10:00:00Z"
    assert utc("2026-01-01T12:00:00.5") == "2026-01-01T12:00:00Z"
    (tmp_path / "a").write_text("x")
    assert utc("nonsense", [tmp_path / "a"]).startswith("20")


def test_packing_and_pulling_load_no_torch(bundle: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from neuronmap.zoo import Zoo; zoo = Zoo(sys.argv[1])\n"
        "zoo.publish(sys.argv[2], 'ada/demo@1.0', licence='MIT'); zoo.pull('ada/demo', sys.argv[3])\n"
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules), sorted(sys.modules)"
    )
    arguments = [str(tmp_path / "zoo"), str(bundle), str(tmp_path / "pulled")]
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("password")
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    (folder / "inner").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "more.txt").write_text("more")
    (folder / "inner" / "own.txt").write_text("own")
    (folder / "again.txt").symlink_to("inner/own.txt")
    record = {"format": "text"}
    assert set(pack_folder(folder, "DATASET", record).files) == {"inner/own.txt", "again.txt"}
    (folder / "pw.txt").symlink_to(secret)
    (folder / "linked").symlink_to(elsewhere)
    (folder / "dangling.txt").symlink_to(folder / "nothing")
    with pytest.raises(InvalidManifestError) as refused:
        pack_folder(folder, "DATASET", record)
    assert [place for place, _ in refused.value.faults] == ["files.dangling.txt", "files.linked", "files.pw.txt"]
    left = pack_folder(folder, "DATASET", record, leave_out=True)
    assert set(left.files) == {"inner/own.txt", "again.txt"}
    assert "pw.txt" in left.notes[0]


def test_a_link_out_of_a_bundle_is_not_followed(bundle: Path, tmp_path: Path) -> None:
    secret, folder = tmp_path / "secret.md", tmp_path / "sae"
    secret.write_text("password")
    shutil.copytree(bundle, folder)
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(secret)
    with pytest.raises(InvalidManifestError, match=r"files\.README\.md: it is a link to"):
        pack_sae(folder)


def test_a_snapshot_of_the_hubs_cache_is_links_into_its_blobs(tmp_path: Path) -> None:
    repository = tmp_path / "models--org--data"
    snapshot = repository / "snapshots" / ("a" * 40)
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (repository / "blobs" / "f00").write_text("numbers")
    (snapshot / "data.txt").symlink_to("../../blobs/f00")
    assert set(pack_folder(snapshot, "DATASET", {"format": "text"}).files) == {"data.txt"}
    (tmp_path / "secret.txt").write_text("password")
    (snapshot / "pw.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(InvalidManifestError, match=r"files\.pw\.txt"):
        pack_folder(snapshot, "DATASET", {"format": "text"})


def test_paths_of_this_machine_are_not_published(bundle: Path) -> None:
    card = bundle / "README.md"
    before, weights = card.read_text(), (bundle / "sae_weights.safetensors").read_bytes()
    card.write_text(f"{before}\nTrained on /data/ada/texts.\n")
    try:
        package = pack_sae(bundle)
        for inside, path in package.files.items():
            assert b"/data/ada" not in path.read_bytes(), inside
        assert "/data/ada" not in repr(package.record)
        assert "Trained on texts." in package.files[package.card].read_text()
        assert package.files["sae_weights.safetensors"].read_bytes() == weights
        assert "cfg.json, README.md" in package.notes[0]
        assert "/data/ada/texts as texts" in package.notes[0]
    finally:
        card.write_text(before)
    assert "/data/ada/texts" in (bundle / "cfg.json").read_text(), "what lies on this machine stays as it is"


def test_an_analysis_is_published_without_paths_and_opens_where_it_is_pulled(bundle: Path, tmp_path: Path) -> None:
    weights = read_bundle_info(bundle).metadata.weights_digest
    facts = {
        "sae": {"id": "sae", "weights_digest": weights, "trained_on": "/data/ada/texts"},
        "model": {"name": "/models/private/tiny", "hidden_size": 12},
        "hook": {"name": "model.layers.2:out", "layer": 2, "component": "residual"},
        "corpus": {"name": "/data/ada/texts", "tokens": 60, "digest": "sha256:" + "3" * 64},
        "notes": {"lens": "/models/private/tiny has no head; see hf://org/models/private/tiny."},
    }
    made = small_store(tmp_path / "store", facts=facts)
    before = {file.name: file.read_bytes() for file in made.iterdir()}
    package = pack_analysis(made)
    assert any("manifest.json: /data/ada/texts as texts, /models/private/tiny as tiny" in one for one in package.notes)
    assert pack_analysis(made).files == package.files, "packing again is packing the same"
    with Zoo(tmp_path / "zoo", progress=SilentProgress()) as zoo:
        zoo.publish(bundle, "ada/sae@1.0", licence="MIT")
        zoo.publish(package, "ada/features@1.0", licence="MIT", depends_on={"sae": "ada/sae@1.0"})
        pulled = zoo.pull("ada/features", tmp_path / "pulled").folder
    assert {file.name: file.read_bytes() for file in made.iterdir()} == before, "what lies here is not touched"
    assert b"/data/ada" not in (pulled / "manifest.json").read_bytes()
    local = json.loads(before["manifest.json"])
    with FeatureStore.open(pulled, verify=True) as store:
        assert store.key == local["key"]
        assert store.manifest["files"] == local["files"]
        assert store.facts["model"]["name"] == "tiny"
        assert store.facts["corpus"] == {**facts["corpus"], "name": "texts"}
        assert store.facts["notes"]["lens"] == "tiny has no head; see hf://org/models/private/tiny."
        assert store.manifest["digest"] != local["digest"]
        assert {name for name in local if store.manifest[name] != local[name]} == {"facts", "digest"}
    again = pack_analysis(pulled)
    assert again.files["manifest.json"] == pulled / "manifest.json", "there is nothing left to shorten"


def test_a_report_is_published_without_paths(tmp_path: Path) -> None:
    values = full_report().to_dict()
    values["model"]["name"] = "/models/private/tiny"
    values["warnings"] = ["/models/private/tiny is small."]
    values["trajectories"][0]["tokens"][0] = "/usr/bin"
    write_json(tmp_path / "report.json", values)
    package = pack_report(tmp_path / "report.json")
    assert "/models/private" not in json.dumps(package.values())
    assert any("report.json: /models/private/tiny as tiny" in note for note in package.notes)
    found = TrackingReport(**json.loads(package.files["report.json"].read_text()))
    assert (found.model["name"], found.warnings) == ("tiny", ["tiny is small."])
    assert found.trajectories[0].tokens[0] == "/usr/bin", "a token that looks like a path is none"
    changed = {name for name, value in found.to_dict().items() if value != values[name]}
    assert changed == {"model", "warnings"}


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("/data", "data"),
        ("see /data/more and '/data'", "see data/more and 'data'"),
        ("file:///data/more", "file://data/more"),
        ("hf://org/data-set", "hf://org/data-set"),
        ("hf://data", "hf://data"),
        ("org/data", "org/data"),
    ],
)
def test_a_path_is_shortened_where_it_is_one(text: str, published: str) -> None:
    assert public_value({"folder": "/data", "text": text})["text"] == published


def test_every_line_of_labels_that_is_at_fault(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text('{"feature": 1, "label": "x"}\n{"feature": -1, "label": "x"}\nnot json\n{"feature": 2}\n')
    with pytest.raises(InvalidManifestError) as refused:
        pack_labels(file, method="people")
    assert [place for place, _ in refused.value.faults] == ["line 2", "line 3", "line 4"]


def test_labels_of_features_that_the_sae_does_not_have(bundle: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.jsonl"
    numbers = (1, 99_999, 48, 47)
    labels.write_text("".join(f'{{"feature": {number}, "label": "winter"}}\n' for number in numbers))
    made = pack_labels(labels, method="people", model={"name": "org/Tiny-LM"})
    with Zoo(tmp_path / "zoo", progress=SilentProgress()) as zoo:
        zoo.publish(bundle, "ada/sae@1.0", licence="MIT")
        with pytest.raises(InvalidManifestError) as refused:
            zoo.publish(made, "ada/labels@1.0", licence="MIT", depends_on={"sae": "ada/sae@1.0"})
    assert [place for place, _ in refused.value.faults] == ["line 2", "line 3"]
    assert "it has 48" in str(refused.value)
