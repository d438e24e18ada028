"""A base around the parts of a pipeline that is open already."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor

from perdure.errors import PerdureError
from perdure.hosts.diffusion.encoders import Source
from perdure.hosts.diffusion.families import family_by_parts, plain
from perdure.hosts.diffusion.files import read_index, stored_weight, variant_of
from perdure.hosts.diffusion.host import Base
from perdure.hosts.diffusion.identity import BaseIdentity
from perdure.hosts.diffusion.vocabulary import Vocabulary
from perdure.hosts.frozen import Layer
from perdure.quiet import quietly

__all__ = ["base_around"]


def base_around(pipeline: Any, wanted: BaseIdentity) -> Base:
    """A base that holds the parts of a pipeline, whatever it draws from beside text.

    The pipeline itself is left alone; `Base.release` undoes what is changed of its parts. The
    identity is of the values that are held; where they are not the ``wanted`` ones, of those in the
    files that it was opened from, if these are the same once they are rounded as it holds them.

    PerdureError where it is of no family, lacks a part, or its weights are held elsewhere.
    """
    family = family_by_parts(pipeline)
    given = _given(pipeline)
    kind = family.pipeline_class(family.pipelines[0])
    asked = inspect.signature(kind.__init__).parameters
    own = {name: plain(given[name]) for name in asked if name in given}
    with quietly():
        shell = kind(**{**own, **_fixed(family.arguments({}), asked)})
    family.check(shell)
    name = str(given.get("_name_or_path") or type(pipeline).__name__)
    known: dict[str, Any] = {"name": Path(name).name, "encoder": ""}
    if any(p.is_meta for part in family.frozen(shell) for p in part.parameters()):
        raise PerdureError(
            "The pipeline's weights are offloaded one by one, and cannot be read: attach the bank "
            "first, then enable_sequential_cpu_offload."
        )
    try:
        base = Base(shell, family, device=next(family.denoiser(shell).parameters()).device, **known)
    except AttributeError as error:
        raise PerdureError(
            f"The scheduler of this pipeline does not say what its denoiser predicts ({error}): "
            "attach the bank first, then change the scheduler."
        ) from error
    try:
        base.identity = _identity(base, name, wanted)
    except BaseException:
        base.release()
        raise
    return base


def _identity(base: Base, name: str, wanted: BaseIdentity) -> BaseIdentity:
    quantised = any(layer.quantised for layer in base.layers.values())
    if not quantised and base.identity.hash == wanted.hash:
        return base.identity
    stored = _stored_identity(base, name)
    if stored is None and quantised:
        raise PerdureError(
            f"The pipeline's denoiser is quantised, and the files that it was made of are not at "
            f"{name}: whether it is the bank's base cannot be told."
        )
    return stored or base.identity


def _given(pipeline: Any) -> dict[str, Any]:
    """Parts and configuration by name."""
    return {**pipeline.config, **pipeline.components}


def _fixed(arguments: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a family opens its pipelines with, but for parts."""
    return {name: value for name, value in arguments.items() if name in asked and value is not None}


def _stored_identity(base: Base, name: str) -> BaseIdentity | None:
    """The identity of the files, where what is held is theirs, rounded or quantised."""
    folder = _folder(name)
    if folder is None:
        return None
    family = base.family
    try:
        index = read_index(folder)
        variant = variant_of(folder, (family.component, *_encoders(base)))
    except PerdureError:
        return None
    stored = partial(stored_weight, folder / family.component, variant)
    same: list[bool] = []

    def checked(held: Tensor, of_file: Tensor) -> Tensor:
        same.append(torch.equal(held.cpu(), of_file.to(held.dtype)))
        return of_file

    def weight(name: str, layer: Layer) -> Tensor:
        of_file = base.stored_init(layer, stored)
        return of_file if layer.quantised else checked(layer.weight, of_file)

    def rows(vocabulary: Vocabulary) -> Tensor:
        part = vocabulary.name
        source = Source(folder=folder / part, kind=str(index[part][1]), variant=variant)
        return checked(vocabulary.rows(), source.table()[: vocabulary.own])

    identity = base.identified(weight, rows)
    return identity if all(same) else None


def _encoders(base: Base) -> list[str]:
    return [vocabulary.name for vocabulary in base.tokens.vocabularies]


def _folder(name: str) -> Path | None:
    """The folder that a pipeline was opened from, of a hub id that in the hub's cache."""
    if (path := Path(name)).is_dir():
        return path
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):
        return None
