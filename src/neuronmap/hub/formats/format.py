"""What a format is: it recognises files, reads them as an SAE of ours, and may write them again.

One module a format. A format decides by file names and tensor names; a configuration's class name alone is never believed.
A plug-in adds its own through the hook ``neuronmap_formats``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from neuronmap.errors import InputError
from neuronmap.saes.metadata import BundleMetadata

if TYPE_CHECKING:
    from neuronmap.hub.formats.stored import Stored
    from neuronmap.saes import SparseAutoencoder

__all__ = ["Candidate", "Exported", "Format", "Given", "Imported"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One thing that a source offers.

    Attributes:
        format: name of the format that recognised it.
        name: what chooses it: its path inside the source, and the layer where one file or folder holds several.
        path: the file or folder it lies in.
        layer: block, counted from 0, where the names tell.
        about: a few words for the list: hook, width, what the folder says.
        kind: ``weights`` of an SAE, or data about its ``features``.
        details: what the format wants to remember until it reads it.
        stored: tensors that were read already, to find out what they are.
    """

    format: str
    name: str
    path: Path
    layer: int | None = None
    about: str = ""
    kind: Literal["weights", "features"] = "weights"
    details: dict[str, Any] = field(default_factory=dict)
    stored: Stored | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for lists."""
        return {
            "format": self.format,
            "name": self.name,
            "path": str(self.path),
            "layer": self.layer,
            "about": self.about,
            "kind": self.kind,
        }


@dataclass(frozen=True, slots=True)
class Given:
    """What the user says about a source, over what its files say.

    Attributes:
        model: name of the language model.
        hook: hook point it reads, as ``component`` of a layer is named or as an explicit ``path:out``.
        assume: answers to what a file leaves open, by name (``rule=batchtopk``, ``site=mlp``); each format lists its own.
        origin: the source as it was typed, for names that only a repository's id tells.
        revision: commit of a hub repository.
    """

    model: str | None = None
    hook: str | None = None
    assume: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    revision: str | None = None


class Imported(NamedTuple):
    """An SAE as it was read.

    Attributes:
        sae: on the CPU, float32.
        metadata: with an ``origin`` record: format, source, files with digests, the original configuration.
        claims: figures that the files themselves give (``explained_variance``, ``l0``), to compare with.
        notes: what the user should know: what was folded, what is missing.
    """

    sae: SparseAutoencoder
    metadata: BundleMetadata
    claims: dict[str, float]
    notes: tuple[str, ...]


class Exported(NamedTuple):
    """An SAE to be written, and what is known of it."""

    sae: SparseAutoencoder
    metadata: BundleMetadata
    metrics: dict[str, Any] | None = None


class Format:
    """A format of files: subclass it, one module a format. Instances hold no state."""

    name: ClassVar[str]
    """As it is typed after ``--format``."""
    title: ClassVar[str]
    """One line for lists."""
    writes: ClassVar[bool] = False
    """Whether :meth:`write` works."""
    answers: ClassVar[Mapping[str, str]] = {}
    """What ``assume`` may answer, by name, each with its meaning."""

    def sniff(self, path: Path) -> list[Candidate]:
        """What of this format lies directly in a folder, or is this file; reads names and headers only."""
        raise NotImplementedError

    def owns(self, stored: Stored) -> bool:
        """Whether tensors of a file without a telling name are of this format; never where they alone do not say enough."""
        del stored
        return False

    def read(self, candidate: Candidate, given: Given) -> Imported:
        """Read one candidate. Here: refused, for formats without weights.

        Raises:
            InputError: its files lack something, or cannot be an SAE of ours; says what and why.
            DamagedError: a file is cut off or changed.
        """
        del given
        raise InputError(
            f"{candidate.path} holds data about features, no SAE.", hint="Attach it to one of the library: --into NAME."
        )

    def write(self, items: list[Exported], folder: Path, given: Given) -> list[Path]:
        """Write SAEs into a folder that exists and is empty; gives the files. Here: refused, for formats that are read only.

        Raises:
            InputError: an SAE that the format has no place for; says why.
        """
        del items, folder, given
        raise InputError(f"{self.name} is read only.", hint="Export as saelens.")
