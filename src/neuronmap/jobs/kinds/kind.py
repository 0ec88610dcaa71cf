"""What every kind of job has: arguments, a title, needs, and how it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from neuronmap.config import FrozenConfig
from neuronmap.errors import DamagedError
from neuronmap.hub import LibraryEntry, SAEModelHub

if TYPE_CHECKING:
    from neuronmap.jobs.context import JobContext

__all__ = ["Kind", "Needs", "usable"]

Args = TypeVar("Args", bound=FrozenConfig)


@dataclass(frozen=True)
class Needs:
    """What a job needs to run.

    Attributes:
        device: cpu, cuda:N or mps.
        memory_bytes: estimate of the memory it will use there.
    """

    device: str
    memory_bytes: int


class Kind(ABC, Generic[Args]):
    """One kind of job.

    Attributes:
        name: as it stands in the table.
        args: its arguments. They come from whoever may submit: which names may be paths is said with each field, and an
            interface that is open to others must restrict those.
    """

    name: ClassVar[str]
    args: type[Args]

    def checked(self, args: Args, hub: SAEModelHub) -> Args:
        """The arguments as the job will get them: names written out, paths absolute. Loads no model.

        Raises:
            ConfigError, InputError, NotInLibraryError, AlreadyExistsError: what would end the job right away.
        """
        del hub
        return args

    @abstractmethod
    def title(self, args: Args) -> str:
        """What the job does, in a few words."""

    @abstractmethod
    def needs(self, args: Args, hub: SAEModelHub) -> Needs:
        """Device and memory, estimated from sizes of files; loads nothing."""

    @abstractmethod
    def run(self, args: Args, context: JobContext) -> dict[str, Any]:
        """Do it, in the job's own process. A later attempt goes on from what an earlier one has saved.

        Returns:
            The result, as plain JSON types.

        Raises:
            Interrupted, KeyboardInterrupt: told to stop; what was done is saved.
            NeuronMapError: it failed.
        """


def usable(hub: SAEModelHub, name: str) -> LibraryEntry:
    """An SAE of the library that is whole.

    Raises:
        NotInLibraryError, DamagedError.
    """
    entry = hub.get(name)
    if entry.problem:
        raise DamagedError(f"SAE '{entry.id}' cannot be used: {entry.problem}", hint=f"It lies in {entry.path}.")
    return entry
