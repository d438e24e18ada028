"""Processes on this machine: how many it can run at once, and a pool that ends with its parent."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.context import BaseContext

__all__ = ["cores", "pool_of"]


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pool_of(processes: int, *modules: str) -> ProcessPoolExecutor:
    """A fresh process for each job, so that no job finds what another left in memory.

    They end themselves where whoever asked for them is killed. With ``modules``, on Linux, each is
    a fork of one that has imported these and has done nothing else: to import torch and diffusers
    takes longer than many a job. Not for a process that may itself be forked afterwards, because
    its child would look for that one in vain.
    """
    if not modules or sys.platform != "linux":
        context: BaseContext = get_context("spawn")
    else:
        context = get_context("forkserver")
        context.set_forkserver_preload(list(modules))
    return ProcessPoolExecutor(processes, context, _leave_with_parent, max_tasks_per_child=1)


def _leave_with_parent() -> None:
    def wait() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)  # what it wrote can be gone on with

    threading.Thread(target=wait, daemon=True).start()
