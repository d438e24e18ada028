"""Where bf16 is worth it: a GPU that computes in it, a CPU with matrix tiles, AMD's AVX-512."""

from functools import cache
from pathlib import Path

import torch

__all__ = ["autocast", "fast_bf16"]


def fast_bf16(device: torch.device) -> bool:
    """Is the hardware good at bf16?

    A rule and no measurement, so that one machine always computes alike. Of CPUs without AMX those
    of AMD gain from bf16; on a Xeon whose AMX was hidden smallworld's U-Net trained slower in it.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _cpu_is_good_at_it()


def autocast(device: torch.device) -> torch.autocast:
    """bf16 where the hardware is good at it, else nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device))


@cache
def _cpu_is_good_at_it() -> bool:
    known = Path("/proc/cpuinfo")
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512") or not known.exists():
        return False
    text = known.read_text()
    return "amx_bf16" in text or ("avx512_bf16" in text and "AuthenticAMD" in text)
