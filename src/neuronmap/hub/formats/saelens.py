"""SAELens' folders, of version 6 and before, and our own bundles, which are such folders: ``cfg.json`` and ``sae_weights.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from neuronmap.errors import InputError
from neuronmap.hashing import digest_file
from neuronmap.hub.formats.format import Candidate, Exported, Format, Given, Imported
from neuronmap.hub.formats.places import hub_model, layer_in
from neuronmap.hub.names import slug
from neuronmap.saes.metadata import CONFIG_FILE, WEIGHTS_FILE, BundleMetadata, read_bundle_info

__all__ = ["SAELens"]


class SAELens(Format):
    """Reads and writes SAELens' folders; what is written is a NeuronMap bundle."""

    name: ClassVar[str] = "saelens"
    title: ClassVar[str] = "SAELens (6 and before) and NeuronMap: cfg.json and sae_weights.safetensors"
    writes: ClassVar[bool] = True

    def sniff(self, path: Path) -> list[Candidate]:
        """A folder with both files."""
        folder = path.parent if path.name == WEIGHTS_FILE else path
        if not (folder / CONFIG_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
            return []
        info = read_bundle_info(folder)
        hook = _hook_name(info.config)
        about = f"{'NeuronMap' if info.metadata else 'SAELens'} {info.architecture}, {info.d_in} -> {info.d_sae} features, {hook}"
        layer = (info.metadata.hook or {}).get("layer") if info.metadata else layer_in(hook)
        return [Candidate(self.name, folder.name, folder, layer, about, details={"bundle": info.metadata is not None})]

    def read(self, candidate: Candidate, given: Given) -> Imported:
        """Read one folder."""
        from neuronmap.saes import load_sae

        folder = candidate.path
        sae = load_sae(folder)
        metadata = sae.provenance.metadata if sae.provenance is not None else BundleMetadata()
        info = read_bundle_info(folder)
        claims: dict[str, float] = {
            name: info.metrics[name] for name in ("explained_variance", "l0") if name in info.metrics
        }
        if info.metadata is not None:
            return Imported(sae, metadata, claims, ())
        metadata = _foreign(candidate, given, info.config, metadata)
        claims |= {name: float(value) for name, value in _figures(info.config).items() if name not in claims}
        return Imported(sae, metadata, claims, ())

    def write(self, items: list[Exported], folder: Path, given: Given) -> list[Path]:
        """One bundle, or one for each SAE in folders of their own."""
        del given
        from neuronmap.saes import save_bundle
        from neuronmap.saes.saelens_format import SAELENS_ARCHITECTURES

        for item in items:
            name = item.sae.saelens_config()["architecture"]
            if name not in SAELENS_ARCHITECTURES:
                raise InputError(
                    f"SAELens has no architecture for a {item.sae.architecture} (NeuronMap's files call it {name!r}).",
                    hint="The bundle in the library is what NeuronMap opens anywhere; huggingface and the zoo take it as it is.",
                )
        written: list[Path] = []
        for number, item in enumerate(items):
            target = folder if len(items) == 1 else folder / _folder_name(item, number)
            if len(items) > 1 and target.exists():
                target = folder / f"{target.name}-{number}"
            save_bundle(item.sae, target, item.metadata, metrics=item.metrics)
            written += [target / name for name in (CONFIG_FILE, WEIGHTS_FILE)]
        return written


def _hook_name(config: Mapping[str, Any]) -> str:
    inner = config.get("metadata")
    names = inner if isinstance(inner, dict) else {}
    return str(names.get("hook_name") or config.get("hook_name") or config.get("hook_point") or "")


def _figures(config: Mapping[str, Any]) -> dict[str, float]:
    inner = config.get("metadata")
    found = inner if isinstance(inner, dict) else {}
    return {name: found[name] for name in ("l0", "explained_variance") if isinstance(found.get(name), int | float)}


def _foreign(candidate: Candidate, given: Given, config: Mapping[str, Any], metadata: BundleMetadata) -> BundleMetadata:
    from neuronmap.saes.saelens_format import plain_config

    plain = plain_config(read_bundle_info(candidate.path))
    known = dict(metadata.model or {})
    name = given.model or hub_model(known.get("name"))
    hook = dict(metadata.hook or {})
    if hook and ":" not in str(hook.get("name") or ""):
        hook["name"] = f"{hook['module_path']}:{hook.get('side', 'out')}" if hook.get("module_path") else None
    files = {name: digest_file(candidate.path / name) for name in (CONFIG_FILE, WEIGHTS_FILE)}
    origin = {
        "format": "saelens",
        "version": plain.metadata.get("sae_lens_version"),
        "architecture": plain.architecture,
        "weights_digest": files[WEIGHTS_FILE],
        "metadata": plain.metadata,
        "files": files,
        "source": given.origin or candidate.name,
        "candidate": candidate.name,
        "revision": given.revision,
        "config": {key: value for key, value in config.items() if key != "metadata"},
    }
    return metadata.updated(model={**known, "name": name} if name else None, hook=hook or None, origin=origin)


def _folder_name(item: Exported, number: int) -> str:
    hook = item.metadata.hook or {}
    if hook.get("layer") is None:
        return f"sae_{number}"
    return f"layer_{hook['layer']}-{slug(str(hook.get('component') or 'hook'))}"
