"""Joint: all concepts in one task, one adapter. The bound of what one adapter can hold.

W = W_init + A B,   trained on the pictures of all concepts at once
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from perdure.methods.lora import LoRA
from perdure.methods.protocol import Kept, Learner, Moments, Shapes


class Joint(LoRA):
    name = "joint"
    title = "Joint: one adapter for all concepts, learned in one task from all pictures"
    paper = "Hu et al., ICLR 2022, arXiv 2106.09685; the bound without forgetting"
    all_at_once = True

    def start(
        self,
        shapes: Shapes,
        past: Sequence[Kept],
        rows: Mapping[str, Tensor],
        generator: torch.Generator,
        *,
        moments: Moments | None = None,
    ) -> Learner:
        if past:
            known = ", ".join(f"<{name}>" for task in past for name in task.concepts)
            raise ValueError(
                f"all concepts are learned in one task, and this bank has had its task ({known}): "
                "learn all of them at once in a new bank"
            )
        return super().start(shapes, past, rows, generator, moments=moments)
