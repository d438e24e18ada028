"""A LoRA read by the stock loaders, and whether what they made of it is what was written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from perdure.hosts.diffusion.lora_files import Modules
from perdure.quiet import quietly

if TYPE_CHECKING:
    from perdure.hosts.diffusion.host import Base

__all__ = ["loaded"]

_FOLDER_OF_PEFT = "adapter_config.json"
TOLERANCE = 0.02
"""Of a module's delta, in its Frobenius norm: what a base in bf16 rounds away."""


@contextmanager
def loaded(base: Base, pipeline: Any, file: Path, modules: Modules) -> Iterator[None]:
    """A block in which a pipeline of the base's kind has a LoRA.

    An `adapter_config.json` is read with its folder by PEFT, any other file by diffusers. Raises
    what the loader raises, and RuntimeError where what it made of the file is not ``modules``.
    """
    denoiser = base.family.denoiser(pipeline)
    with quietly():
        if file.name == _FOLDER_OF_PEFT:
            from peft import PeftModel

            unload = PeftModel.from_pretrained(denoiser, file.parent).unload
        else:
            pipeline.load_lora_weights(file.parent, weight_name=file.name)
            unload = pipeline.unload_lora_weights
    try:
        _compare(denoiser, modules)
        yield
    finally:
        with quietly():
            unload()


def _compare(denoiser: nn.Module, modules: Modules) -> None:
    """RuntimeError where an adapted module's delta is not what was written."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    wanted = dict(modules)
    for path, module in denoiser.named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        (name,) = module.active_adapters
        has: Tensor = module.get_delta_weight(name).detach().float().flatten(1)
        if path not in wanted:
            if bool(has.any()):
                raise RuntimeError(f"{path} is changed, which was not to be")
            continue
        up, down = (factor.to(has) for factor in wanted.pop(path))
        if not float((has - up @ down).norm()) <= TOLERANCE * float((up @ down).norm()):
            raise RuntimeError(f"what was loaded for {path} is not what was written")
    if wanted:
        raise RuntimeError(f"{next(iter(wanted))} was not loaded")
