"""Every error NeuronMap raises on purpose, as one tree.

    NeuronMapError
    ├── ConfigError              a setting is unknown, out of range or clashes with another   (also ValueError)
    ├── InputError               what was given to work on cannot be used                     (also ValueError)
    │   ├── CorpusNotFoundError      no such file, folder, sample or data set
    │   ├── CorpusFormatError        the text source is there but cannot be read as asked
    │   ├── EmptyCorpusError         the source holds no usable text
    │   ├── JobNotFoundError         no job of that id
    │   └── InvalidManifestError     a zoo manifest has faults; lists every one with its place
    ├── ModelError
    │   ├── ModelNotFoundError       no such hub id, folder, file or sample
    │   ├── ModelOfflineError        the hub is needed and cannot be reached
    │   ├── ModelGatedError          the hub wants a licence accepted or a token
    │   ├── ModelFormatError         the files are there but are not a model we can read
    │   └── HookPointError           no such layer, component or module in this model
    ├── ResourceError
    │   ├── MemoryExhaustedError     the device ran out of memory
    │   ├── DiskSpaceError           not enough room for what is about to be written
    │   ├── UnwritablePathError      the folder cannot be written
    │   └── WorkerLostError          the process of a job ended without a word, again and again
    ├── DamagedError             a file or folder of ours fails its digest or is incomplete
    ├── MismatchError            two things do not belong together (store and model, SAE and model)
    ├── NotInLibraryError        no SAE of that name in this machine's library                (also KeyError)
    ├── ZooError                 the zoo cannot do what was asked
    │   ├── NotInZooError            no such artefact, version or file, or not for the asker's eyes        (also KeyError)
    │   ├── UnauthorizedError        it must know who asks
    │   ├── ForbiddenError           it knows who asks, and they may not
    │   ├── QuotaError               the namespace's quota would be exceeded
    │   ├── TooOftenError            wrong passwords, one after the other
    │   ├── UploadError              a piece of an upload does not continue it; says from where to go on
    │   └── ZooOfflineError          the zoo's server cannot be reached
    ├── EndpointError            a language model's endpoint cannot be reached, or refuses
    │   └── BudgetError              the next question does not fit into the budget
    ├── AlreadyExistsError       the target exists and would be overwritten
    ├── TrainingDivergedError    loss or activations are no longer finite
    ├── PluginError              a plug-in failed to load or broke its contract
    ├── MissingDependencyError   an optional package is needed                                (also ImportError)
    ├── WebError                 a request to the server cannot be answered; carries its status
    └── Interrupted              Ctrl-C or SIGTERM; what was done so far is saved

A message says what happened, the value received, what is allowed; ``hint`` is the next step to type.
``code`` is stable and documented in ``docs/reference/errors.md``. Exit codes live in ``neuronmap.cli``.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "AlreadyExistsError",
    "BudgetError",
    "ConfigError",
    "CorpusFormatError",
    "CorpusNotFoundError",
    "DamagedError",
    "DiskSpaceError",
    "EmptyCorpusError",
    "EndpointError",
    "ForbiddenError",
    "HookPointError",
    "InputError",
    "Interrupted",
    "InvalidManifestError",
    "JobNotFoundError",
    "MemoryExhaustedError",
    "MismatchError",
    "MissingDependencyError",
    "ModelError",
    "ModelFormatError",
    "ModelGatedError",
    "ModelNotFoundError",
    "ModelOfflineError",
    "NeuronMapError",
    "NotInLibraryError",
    "NotInZooError",
    "PluginError",
    "QuotaError",
    "ResourceError",
    "TooOftenError",
    "TrainingDivergedError",
    "UnauthorizedError",
    "UnwritablePathError",
    "UploadError",
    "WebError",
    "WorkerLostError",
    "ZooError",
    "ZooOfflineError",
]


class NeuronMapError(Exception):
    """Base of the tree.

    Args:
        message: what happened, the value received and what is allowed, as one or two sentences.
        hint: the next step for the user, usually something to type. Empty when there is none.
    """

    code = "neuronmap_error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class ConfigError(NeuronMapError, ValueError):
    """A setting is unknown, out of range, or clashes with another one."""

    code = "config"


class InputError(NeuronMapError, ValueError):
    """What was given to work on (text, activations, a path) cannot be used."""

    code = "input"


class CorpusNotFoundError(InputError):
    """The text source does not exist."""

    code = "corpus_not_found"


class CorpusFormatError(InputError):
    """The text source exists but cannot be read as asked (wrong column, broken file, unknown ending)."""

    code = "corpus_format"


class EmptyCorpusError(InputError):
    """The text source holds no usable text, or too little for one step."""

    code = "corpus_empty"


class JobNotFoundError(InputError):
    """There is no job of that id (or several begin so)."""

    code = "job_not_found"


class InvalidManifestError(InputError):
    """A zoo manifest, or what it says of its files, is not as it must be.

    Args:
        faults: (place, message) of all that was found, at least one; the place is empty for the whole.
        what: what is wrong, for the message's beginning.
    """

    code = "invalid_manifest"

    def __init__(self, faults: Iterable[tuple[str, str]], what: str = "The manifest") -> None:
        self.faults = tuple(faults)
        lines = "".join(f"\n  {place}: {message}" if place else f"\n  {message}" for place, message in self.faults[:20])
        more = f"\n  ... and {len(self.faults) - 20} more" if len(self.faults) > 20 else ""
        number = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__(f"{what} has {number}:{lines}{more}")


class ModelError(NeuronMapError):
    """A language model cannot be loaded or used."""

    code = "model"


class ModelNotFoundError(ModelError):
    """No hub id, folder, GGUF file or sample of that name."""

    code = "model_not_found"


class ModelOfflineError(ModelError):
    """The model is not on this machine and the hub cannot be reached."""

    code = "model_offline"


class ModelGatedError(ModelError):
    """The hub asks for an accepted licence or an access token."""

    code = "model_gated"


class ModelFormatError(ModelError):
    """The files are there but do not hold a model that can be read."""

    code = "model_format"


class HookPointError(ModelError):
    """The model has no such layer, component or module."""

    code = "hook_point"


class ResourceError(NeuronMapError):
    """Memory, disk or permission is missing."""

    code = "resource"


class MemoryExhaustedError(ResourceError):
    """The device ran out of memory."""

    code = "memory"


class DiskSpaceError(ResourceError):
    """There is not enough free disk space for what is about to be written. Without a hint of its own it says where room can be made."""

    code = "disk_space"

    def __init__(
        self, message: str, *, hint: str = "Free disk space: neuronmap cache list shows what can be made again."
    ) -> None:
        super().__init__(message, hint=hint)


class UnwritablePathError(ResourceError):
    """The folder cannot be created or written."""

    code = "unwritable"


class WorkerLostError(ResourceError):
    """The process of a job ended without writing its end, as often as that is borne: killed, most likely for memory."""

    code = "worker_lost"


class DamagedError(NeuronMapError):
    """A stored file fails its digest, is incomplete, or has an unknown format version."""

    code = "damaged"


class MismatchError(NeuronMapError):
    """Two things do not belong together; the message lists every difference."""

    code = "mismatch"


class NotInLibraryError(NeuronMapError, KeyError):
    """This machine's library has no SAE of that name."""

    code = "not_in_library"
    __str__ = NeuronMapError.__str__  # KeyError would print the repr


class ZooError(NeuronMapError):
    """The zoo cannot do what was asked."""

    code = "zoo"


class NotInZooError(ZooError, KeyError):
    """There is no such artefact, version or file in the zoo, or the asker may not know of it."""

    code = "not_in_zoo"
    __str__ = NeuronMapError.__str__


class UnauthorizedError(ZooError):
    """The zoo must know who asks before it does this."""

    code = "unauthorized"


class ForbiddenError(ZooError):
    """The zoo knows who asks, and they may not do this."""

    code = "forbidden"


class QuotaError(ZooError):
    """What is to be published does not fit in the namespace's quota."""

    code = "quota"


class TooOftenError(ZooError):
    """Passwords were tried too often."""

    code = "too_many_requests"
    headers = {"Retry-After": "60"}  # noqa: RUF012 - of the HTTP answer


class UploadError(ZooError):
    """A piece of an upload does not continue what is there.

    Args:
        message, hint: as for every error.
        received: bytes that are there: go on from here.
    """

    code = "upload"

    def __init__(self, message: str, *, hint: str = "", received: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.received = received


class ZooOfflineError(ZooError):
    """The zoo's server cannot be reached."""

    code = "zoo_offline"


class EndpointError(NeuronMapError):
    """The endpoint of a language model cannot be reached, does not know the key or the model, or asks to wait too long."""

    code = "endpoint"


class BudgetError(EndpointError):
    """The next question does not fit into what is left of the budget."""

    code = "budget"


class AlreadyExistsError(NeuronMapError):
    """The target exists already and is not overwritten unasked."""

    code = "already_exists"


class TrainingDivergedError(NeuronMapError):
    """Loss, gradients or input activations stopped being finite."""

    code = "diverged"


class PluginError(NeuronMapError):
    """A plug-in failed to load, or broke the contract of what it registers."""

    code = "plugin"


class MissingDependencyError(NeuronMapError, ImportError):
    """An optional package is needed; the hint gives the install line."""

    code = "missing_dependency"


class WebError(NeuronMapError):
    """A request to the server cannot be answered. Exists over HTTP only.

    Args:
        status: the HTTP status.
        code: stable word for the kind of error.
        message, hint: as for every error.
        headers: further headers of the answer.
    """

    code = "web"

    def __init__(
        self, status: int, code: str, message: str, *, hint: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status, self.code, self.headers = status, code, headers or {}


class Interrupted(NeuronMapError):
    """Stopped by Ctrl-C or SIGTERM after saving; the hint says how to continue."""

    code = "interrupted"
