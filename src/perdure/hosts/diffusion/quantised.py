"""Denoisers whose weights are quantised when they are read, by diffusers' own configuration."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from diffusers import BitsAndBytesConfig, PipelineQuantizationConfig, TorchAoConfig

from perdure.errors import PerdureError

__all__ = ["QUANTISED", "configuration"]

QUANTISED = {"int8": "torchao", "bnb-int8": "bitsandbytes", "bnb-nf4": "bitsandbytes"}
"""What `--quantize` may be -> the library that does it."""


def configuration(name: str, component: str, dtype: torch.dtype) -> Any:
    """What `from_pretrained` is given to quantise a component, which computes in a dtype.

    PerdureError for an unknown name and where the library is not installed.
    """
    if name not in QUANTISED:
        raise PerdureError(f"quantize is {name!r}, but must be one of {', '.join(QUANTISED)}.")
    library = QUANTISED[name]
    if importlib.util.find_spec(library) is None:
        raise PerdureError(
            f"quantize={name} needs {library}, which is not installed: pip install {library}."
        )
    if library == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig

        one: Any = TorchAoConfig(Int8WeightOnlyConfig())
    elif name == "bnb-int8":
        one = BitsAndBytesConfig(load_in_8bit=True)
    else:
        one = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    return PipelineQuantizationConfig(quant_mapping={component: one})
