"""What a run was made on: the processor's name, its precision, and the most memory it took."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from perdure.precision import fast_bf16

__all__ = ["environment", "peak_memory"]

_PACKAGES = ("perdure", "diffusers", "transformers", "numpy")
_CPUS, _STATUS = Path("/proc/cpuinfo"), Path("/proc/self/status")


def environment(device: torch.device) -> dict[str, str]:
    """Versions, threads, the processor's name, and the precision that products are computed in."""
    return {
        **{name: _version(name) for name in _PACKAGES},
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
        "machine": _name(device),
        "precision": "bf16 autocast" if fast_bf16(device) else "fp32",
    }


def peak_memory(device: torch.device) -> int | None:
    """Bytes, of the GPU where one is used, else of this process since it began; None on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    for line in status:  # `ru_maxrss` also counts what the parent had when it forked
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = _CPUS.read_text().splitlines() if _CPUS.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
