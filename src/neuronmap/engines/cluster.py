"""Reaching a Ray cluster: one of this process's own, or one of many hosts. Either takes work only from who has its token.

Whoever can reach the ports of a Ray without a token can run code on all of its hosts, and Ray listens on every interface of a host,
whatever address it was started with. So a cluster is used only if it refuses those who have no token. That is tried, not believed.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TextIO, cast

from neuronmap.errors import ConfigError, MissingDependencyError, ResourceError
from neuronmap.progress import Progress

__all__ = ["Cluster", "Places", "connected", "import_ray"]

_MODE, _TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"  # names of environment variables, no secrets
_HOW = (
    "Once: ray get-auth-token --generate, and copy ~/.ray/auth_token to every host. On each of them, and in the shell of this command:"
    " export RAY_AUTH_MODE=token. Then start it anew: ray stop on every host, ray start --head --port 6379 on the first,"
    " ray start --address FIRST:6379 on the others."
)
_REACH_SECONDS = 3.0
_ASK_SECONDS = 20.0
_ASKING = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)
except AuthenticationError:
    sys.exit(7)
"""
_REFUSED = 7
"""Exit code of what asks a cluster for its hosts, when the cluster does not tell."""


class Places(NamedTuple):
    """Room for workers.

    Attributes:
        workers: how many.
        cpus: of each; threads follow from it.
        gpus: of each.
    """

    workers: int
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to.

    Attributes:
        ray: the module.
        hosts: CPUs and GPUs of each node that is alive.
    """

    ray: Any
    hosts: tuple[tuple[int, int], ...]

    def places(self, workers: int | None, device: str | None = None) -> Places:
        """Room for so many workers, as much for each as there is.

        Args:
            workers: how many; None for one on each host, or each GPU.
            device: ``cuda`` for workers with a GPU, ``cpu`` for such without; None or ``auto``: a GPU each where there are any.

        Raises:
            ConfigError: there is not that much room.
        """
        gpus = sum(gpu for _, gpu in self.hosts)
        kind = (device or "auto").partition(":")[0]
        if kind == "cuda" or (kind == "auto" and gpus):
            if not gpus:
                raise ConfigError("No host of the Ray cluster has a GPU.", hint="Give --device cpu, or add such hosts.")
            if workers is not None and workers > gpus:
                raise ConfigError(f"workers = {workers}: the Ray cluster has {gpus} GPUs, and each worker takes one.")
            share = min(cpu // gpu for cpu, gpu in self.hosts if gpu)
            return Places(workers or gpus, max(share, 1), 1)
        sizes = [cpu for cpu, _ in self.hosts if cpu >= 1]
        if not sizes:
            raise ConfigError("No host of the Ray cluster offers a CPU.", hint="ray start ... --num-cpus N")
        if workers is None:
            return Places(len(sizes), min(sizes), 0)
        fitting = [cpus for cpus in range(1, max(sizes) + 1) if sum(size // cpus for size in sizes) >= workers]
        if not fitting:
            raise ConfigError(f"workers = {workers}: the Ray cluster has {sum(sizes)} CPUs, and each worker takes one.")
        return Places(workers, max(fitting), 0)


def import_ray() -> Any:
    """Ray, which sends nothing about its use to anyone.

    Raises:
        MissingDependencyError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a worker without a GPU is left as it is
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("engine = ray needs Ray.", hint='pip install "neuronmap[ray]"') from error
    return ray


@contextmanager
def connected(address: str | None, progress: Progress) -> Iterator[Cluster]:
    """Connect to a cluster; a process that is connected already stays so, and uses that one.

    Args:
        address: as for :class:`~neuronmap.engines.EngineSettings`.
        progress: where notes go.

    Raises:
        ConfigError: a cluster that takes work without its token.
        MissingDependencyError: Ray is not installed.
        ResourceError: the cluster cannot be reached, or does not take this token.
    """
    ray = import_ray()
    ours = not ray.is_initialized()
    before, sys.stdout = sys.stdout, cast("TextIO", _WithoutRay(sys.stdout))
    try:
        if ours:
            _connect(ray, address)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        _require_guarded(str(ray.get_runtime_context().gcs_address))
        hosts = tuple((int(n["Resources"].get("CPU", 0)), int(n["Resources"].get("GPU", 0))) for n in nodes)
        where = "a Ray of its own on this host" if address is None and ours else f"Ray at {address or 'this session'}"
        progress.note(f"Working on {where}: {len(hosts)} node(s), {sum(cpu for cpu, _ in hosts)} CPUs,"
                      f" {sum(gpu for _, gpu in hosts)} GPUs.")  # fmt: skip
        yield Cluster(ray, hosts)
    finally:
        if ours:
            ray.shutdown()
        sys.stdout = before


class _WithoutRay:
    """Standard output without what a thread of Ray prints of lost workers: results are printed there, and the pool says it itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if threading.current_thread().name.startswith("ray_") else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    try:
        if address is None:
            os.environ.setdefault(_TOKEN, secrets.token_hex(32))  # of this process and its children alone
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            _require_answer(address)
            ray.init(address=address, **quiet)
    except ray.exceptions.AuthenticationError as error:
        raise _wrong_token(address or "local") from error
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        if address is not None:
            raise _unreachable(address, error) from error
        raise ResourceError(
            f"A Ray of its own cannot be started: {_first_line(error)}.",
            hint="ray stop ends what an earlier one may have left.",
        ) from error


def _require_answer(address: str) -> None:
    """Try a HOST:PORT, or the one that ``auto`` means, before Ray does, which asks for minutes and writes lines of its own.

    Other addresses are left to Ray.

    Raises:
        ResourceError: nothing listens there, or what does refuses the token of this process.
    """
    if address == "auto":
        address = _found() or address
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise _unreachable(address, error) from error
    if _asked(address, dict(os.environ)) == _REFUSED:
        raise _wrong_token(address)


def _found() -> str | None:
    """The HOST:PORT of the cluster that ``auto`` means; None where Ray is left to say that there is none."""
    try:
        from ray._private.services import canonicalize_bootstrap_address

        found: str | None = canonicalize_bootstrap_address("auto")
    except (
        ImportError,
        OSError,
        ValueError,
    ):  # the name is Ray's own and may change: the address is then tried by Ray alone
        return None
    return found


def _unreachable(address: str, error: Exception) -> ResourceError:
    return ResourceError(
        f"The Ray cluster at {address} cannot be reached: {_first_line(error)}.",
        hint="Is it running (ray status), and does it have the token of this host (RAY_AUTH_MODE=token, ray get-auth-token)?",
    )


def _wrong_token(address: str) -> ResourceError:
    return ResourceError(
        f"The Ray cluster at {address} refused the token of this host, or this host sent none.",
        hint=f"export {_MODE}=token, and put the cluster's token into ~/.ray/auth_token (or {_TOKEN}).",
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300].rstrip(".")


def _require_guarded(address: str) -> None:
    """Ask as a stranger would, and be refused."""
    environment = {name: value for name, value in os.environ.items() if name not in (_TOKEN, "RAY_AUTH_TOKEN_PATH")}
    environment[_MODE] = "disabled"
    code = _asked(address, environment)
    if code == 0:
        raise ConfigError(
            f"The Ray cluster at {address} takes work from anybody who reaches it: it was started without a token.",
            hint=_HOW,
        )
    if code != _REFUSED:
        raise ResourceError(f"Whether the Ray cluster at {address} asks for a token could not be told.", hint=_HOW)


def _asked(address: str, environment: dict[str, str]) -> int:
    """Ask a cluster for its hosts, from a process with this environment: 0 if it told them, ``_REFUSED``, or another number."""
    try:
        return subprocess.run(
            [sys.executable, "-c", _ASKING, address],
            env=environment,
            timeout=_ASK_SECONDS,
            capture_output=True,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return -1
