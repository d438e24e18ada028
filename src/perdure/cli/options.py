"""Options that several verbs share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from perdure.errors import PerdureError

__all__ = [
    "BankOption",
    "BaseOption",
    "ConfigOption",
    "DeviceOption",
    "DtypeOption",
    "EncoderOption",
    "ManyConcepts",
    "MethodOptions",
    "QuantizeOption",
    "RayOption",
    "RecordsOption",
    "ReportOption",
    "RunsOption",
    "VaryOption",
    "WorkOption",
    "method_options",
    "opening",
    "varied",
]

BankOption = Annotated[
    Path, typer.Option("--bank", help="Folder of the bank; to read, hf://user/name.")
]
BaseOption = Annotated[
    str,
    typer.Option("--base", help="smallworld, a folder, one .safetensors file, or a hub id."),
]
ConfigOption = Annotated[
    str, typer.Option("--config", help="Of a single file: a diffusers folder of the same model.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="Such as cpu or cuda:1.")]
DtypeOption = Annotated[
    str, typer.Option("--dtype", help="float32, bfloat16 or float16; default: the base's own.")
]
QuantizeOption = Annotated[
    str,
    typer.Option("--quantize", help="Hold the denoiser's weights as int8, bnb-int8 or bnb-nf4."),
]
EncoderOption = Annotated[
    str,
    typer.Option(
        "--encoder", help="Metric encoder: folder or hub id of a CLIP or DINO, or smallworld-eyes."
    ),
]
ManyConcepts = Annotated[
    list[str] | None, typer.Option("--concept", help="Which concept; give it again for more.")
]
RayOption = Annotated[
    str, typer.Option("--ray", help="Run on this Ray cluster (pip install perdure[ray]).")
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help="An option of the method, such as rank=8; again for more."),
]
VaryOption = Annotated[
    list[str] | None,
    typer.Option("--vary", help="Values to try, such as lr=1e-3,5e-4 or method.penalty=30,300."),
]
RecordsOption = Annotated[
    Path, typer.Option("--out", help="Folder of the records, tables and report.")
]
WorkOption = Annotated[
    Path, typer.Option("--work", help="Folder of what runs learn and go on from.")
]
RunsOption = Annotated[
    int | None,
    typer.Option(
        "--processes",
        min=1,
        max=1000,
        help="Runs at a time; by default one for each core, one on a GPU.",
    ),
]
ReportOption = Annotated[
    bool, typer.Option("--report", help="Run nothing: only write tables and report anew.")
]


def opening(config: str, device: str, dtype: str, quantize: str = "") -> dict[str, str | None]:
    """What `Base.open` is given of these options, None where one was not; `quantize` where the verb
    has it."""
    given = {"config": config or None, "device": device or None, "dtype": dtype or None}
    return {**given, "quantize": quantize} if quantize else given


def method_options(pairs: Sequence[str]) -> dict[str, Any]:
    """`rank=8` and the like, each value read as JSON where it is JSON."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise PerdureError(f"--option {pair!r} has no value: write it as name=value.")
        options[key.replace("-", "_")] = _value(text)
    return options


def varied(texts: Sequence[str]) -> dict[str, list[Any]]:
    """`lr=0.003,0.01` -> {"lr": [0.003, 0.01]}."""
    found: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not values:
            raise PerdureError(f"--vary {text!r} has no values: write it as lr=0.003,0.01.")
        found[key.replace("-", "_")] = [_value(value) for value in values.split(",")]
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
