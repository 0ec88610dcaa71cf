"""How a bundle gets into the library: copied as it is, or rewritten from a plain SAELens folder."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from neuronmap import paths
from neuronmap.errors import ConfigError, DamagedError, DiskSpaceError, UnwritablePathError
from neuronmap.hashing import digest_file
from neuronmap.saes.metadata import CONFIG_FILE, WEIGHTS_FILE, BundleMetadata, read_bundle_info

__all__ = ["clean_tags", "convert_saelens", "copy_visible", "require_digest", "write_metadata"]


def copy_visible(source: Path, target: Path) -> None:
    """Copy a file or a folder's visible files, flushed to disk. Linked files (as in the hub's cache) become files."""
    if source.is_file():
        visible = [source]
    else:
        visible = []
        for folder, inner, names in os.walk(source):
            inner[:] = [name for name in inner if not name.startswith(".")]
            visible += [Path(folder, name) for name in names if not name.startswith(".")]
    paths.check_disk_space(target, sum(file.stat().st_size for file in visible), str(source), 1 << 20)
    try:
        for file in visible:
            copy = target / file.relative_to(source) if source.is_dir() else target
            paths.new_folder(copy.parent)
            with open(file, "rb") as reading, open(copy, "wb") as writing:
                shutil.copyfileobj(reading, writing, 1 << 20)
                writing.flush()
                os.fsync(writing.fileno())
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskSpaceError(f"No space left while copying {source}.") from error
        raise UnwritablePathError(f"Cannot copy {source} to {target}: {error.strerror or error}.") from error


def require_digest(bundle: Path, metadata: BundleMetadata) -> None:
    """Refuse weights that are not the ones the bundle was written with."""
    found = digest_file(bundle / WEIGHTS_FILE)
    if metadata.weights_digest != found:
        raise DamagedError(
            f"{WEIGHTS_FILE} has the digest {found}, but its bundle says {metadata.weights_digest}: it was changed or damaged.",
            hint="It is not registered. Restore the file from where it came from.",
        )


def convert_saelens(folder: Path, bundle: Path) -> None:
    """Read a plain SAELens folder and write it as a NeuronMap bundle that remembers where it came from."""
    from neuronmap.saes.bundle import load_sae, save_bundle
    from neuronmap.saes.saelens_format import plain_config

    info = read_bundle_info(folder)
    plain = plain_config(info)
    sae = load_sae(folder)
    origin = {
        "format": "saelens",
        "version": plain.metadata.get("sae_lens_version"),
        "architecture": plain.architecture,
        "weights_digest": digest_file(folder / WEIGHTS_FILE),
        "metadata": plain.metadata,
    }
    known = sae.provenance.metadata if sae.provenance is not None else BundleMetadata()
    save_bundle(sae, bundle, known.updated(origin=origin))


def write_metadata(bundle: Path, metadata: BundleMetadata) -> None:
    """Replace our block in ``cfg.json`` atomically; the weights are not touched."""
    config = paths.read_json(bundle / CONFIG_FILE)
    config["metadata"]["neuronmap"] = metadata.to_dict()
    paths.write_json(bundle / CONFIG_FILE, config)


def clean_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags without repeats and outer spaces; refuses empty, overlong and unprintable ones."""
    cleaned = tuple(dict.fromkeys(tag.strip() for tag in tags))
    for tag in cleaned:
        if not tag or len(tag) > 60 or any(character in tag for character in ",\n\r\t"):
            raise ConfigError(f"{tag!r} cannot be a tag: 1 to 60 characters, no commas or line breaks.")
    return cleaned
