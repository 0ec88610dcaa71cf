"""Exit codes: the one place where an error becomes a number.

0  done                                   5  files damaged, or things that do not belong together
1  a bug of ours (a traceback is shown)   6  not in library or zoo, or there already
2  wrong usage, settings or input         7  training diverged
3  the language model                     8  a plug-in or an optional package
4  memory, disk or permissions            9  the zoo: not signed in, not allowed, no room
                                         10  a zoo's server or a language model's endpoint cannot be reached
                                        130  stopped by Ctrl-C or SIGTERM, work saved
"""

from __future__ import annotations

from neuronmap import errors

__all__ = ["EXIT_CODES", "exit_code"]

EXIT_CODES: dict[type[errors.NeuronMapError], int] = {
    errors.NeuronMapError: 1,
    errors.ConfigError: 2,
    errors.InputError: 2,
    errors.ModelError: 3,
    errors.ResourceError: 4,
    errors.DamagedError: 5,
    errors.MismatchError: 5,
    errors.NotInLibraryError: 6,
    errors.AlreadyExistsError: 6,
    errors.NotInZooError: 6,
    errors.ZooError: 9,
    errors.UploadError: 10,
    errors.ZooOfflineError: 10,
    errors.EndpointError: 10,
    errors.TrainingDivergedError: 7,
    errors.PluginError: 8,
    errors.MissingDependencyError: 8,
    errors.WebError: 1,
    errors.Interrupted: 130,
}


def exit_code(error: errors.NeuronMapError) -> int:
    """The code of the nearest class in the tree."""
    return next(EXIT_CODES[cls] for cls in type(error).__mro__ if cls in EXIT_CODES)
