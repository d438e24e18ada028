"""A Ray cluster as the place where jobs run that do not depend on one another; Ray is optional."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from perdure.errors import PerdureError

__all__ = ["cause", "on_cluster"]

R = TypeVar("R")


def on_cluster(
    work: Callable[..., R], jobs: Sequence[tuple[Any, ...]], address: str
) -> list[Future[R]]:
    """Call ``work(*job)`` for every job on the cluster at ``address``, one CPU each, in order.

    What a job reads and writes must lie on a file system that all nodes of the cluster see.
    Raises PerdureError where Ray is not installed, and where there is no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise PerdureError(
            "Running on a cluster needs Ray: `pip install 'perdure[ray]'`, or leave its address "
            "out."
        ) from error
    try:
        _reach(address)
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise PerdureError(f"There is no Ray cluster at {address!r}: {error}") from error
    remote = ray.remote(num_cpus=1, max_retries=0, max_calls=1)(work)
    return [remote.remote(*job).future() for job in jobs]


def _reach(address: str) -> None:
    """OSError where nobody listens at a plain host:port, which Ray itself retries for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def cause(error: BaseException) -> BaseException:
    """What the job itself raised: Ray wraps it, and puts its traceback into the sentence."""
    return getattr(error, "cause", None) or error
