"""The base's figures: what was measured with which settings, its lines in a table, its JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from PIL import Image

from perdure.smallworld.recognition import Recognition

__all__ = ["AIM_AUC", "AIM_PSNR", "AIM_RATIO", "Quality", "Row"]

AIM_PSNR = 30.0
"""dB: the autoencoder, over all renders and over photographs of people."""
AIM_AUC = 0.998
"""Identity verification of people."""
AIM_RATIO = 0.9
"""Recognition of an attribute in drawn pictures, over the same in renders.

An attribute that the encoder only guesses in renders misses the aim, whatever the ratio.
"""


class Row(NamedTuple):
    """One line of a table; ``ok`` is None where there is no aim."""

    name: str
    value: str
    aim: str
    ok: bool | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Quality:
    """The base's figures. All but the speed are functions of the weights and the settings below."""

    psnr: Mapping[str, float]
    """Autoencoder, mean over pictures, dB: "all", each domain, each style, "photos of people"."""
    auc: Mapping[str, float]
    """Identity verification, by domain."""
    identities: int
    """Identities a domain behind ``auc``."""
    recognition: Mapping[str, Recognition]
    """By attribute, in the order of ``ATTRIBUTES``."""
    mmd: float
    """Squared MMD of image embeddings, unscaled: drawn (A) to renders (B)."""
    mmd_renders: float
    """The same, renders (A) to renders (B): what a perfect base would score."""
    frechet: float
    """Fréchet distance of image embeddings: drawn (A) to renders (B)."""
    frechet_renders: float
    """The same, renders (A) to renders (B)."""
    pictures_per_second: float
    """Drawing alone, text encoding and decoding included."""
    pictures: int
    seed: int
    steps: int
    guidance: float
    batch: int
    autocast: bool
    device: str
    threads: int
    """Threads that torch may use on the CPU."""
    encoder: str
    """Name of the metric encoder."""
    grid: Image.Image = field(repr=False)
    """For each domain a row of renders and below it the pictures drawn from the same prompts."""
    grid_prompts: tuple[tuple[str, ...], ...] = field(repr=False)
    """The grid's prompts: one tuple a domain, one prompt a column."""

    @property
    def passed(self) -> bool:
        """Whether every figure that has an aim reaches it."""
        return all(row.ok for row in self.rows() if row.ok is not None)

    def rows(self) -> list[Row]:
        """The figures as lines of a table, in reading order."""
        rows = []
        for name, value in self.psnr.items():
            title = f"Autoencoder PSNR, {name} (dB)"
            if name in ("all", "photos of people"):
                rows.append(_aimed(title, value, AIM_PSNR, f"{value:.2f}"))
            else:
                rows.append(Row(title, f"{value:.2f}", "", None))
        for domain, value in self.auc.items():
            title = f"Identity AUC, {domain} ({self.identities} identities)"
            if domain == "person":
                rows.append(_aimed(title, value, AIM_AUC, f"{value:.4f}"))
            else:
                rows.append(Row(title, f"{value:.4f}", "", None))
        for attribute, share in self.recognition.items():
            text = (
                f"{share.drawn:.3f} / {share.renders:.3f} = {share.ratio:.3f} "
                f"(chance {share.chance:.2f}, {share.count} pictures"
                f"{'' if share.readable else '; the encoder only guesses'})"
            )
            title = f"Recognised {attribute}, drawn / renders"
            ok = share.readable and share.ratio >= AIM_RATIO
            rows.append(Row(title, text, f">= {AIM_RATIO:g}", ok))
        between = "two sets of renders"
        speed = (
            f"{self.pictures_per_second:.2f} ({self.device}, {self.threads} threads, "
            f"{self.steps} steps, guidance {self.guidance:g}, batches of {self.batch}, "
            f"{'bf16' if self.autocast else 'no'} autocast)"
        )
        return [
            *rows,
            Row(
                "MMD × 1000, drawn to renders",
                f"{1000 * self.mmd:.3f} ({between} {1000 * self.mmd_renders:.3f})",
                "",
                None,
            ),
            Row(
                "Fréchet distance, drawn to renders",
                f"{self.frechet:.4f} ({between} {self.frechet_renders:.4f})",
                "",
                None,
            ),
            Row("Pictures a second", speed, "", None),
        ]

    def to_json(self) -> dict[str, object]:
        """Every figure and setting, without the grid's pixels; ``json.dumps`` takes it as it is."""
        skipped = ("grid", "recognition")
        plain: dict[str, object] = {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if item.name not in skipped
        }
        return plain | {
            "psnr": dict(self.psnr),
            "auc": dict(self.auc),
            "recognition": {
                name: {
                    **dataclasses.asdict(share),
                    "ratio": share.ratio,
                    "readable": share.readable,
                }
                for name, share in self.recognition.items()
            },
            "grid_prompts": [list(prompts) for prompts in self.grid_prompts],
            "aims": {"psnr": AIM_PSNR, "auc": AIM_AUC, "ratio": AIM_RATIO},
            "passed": self.passed,
        }


def _aimed(name: str, value: float, aim: float, text: str) -> Row:
    return Row(name, text, f">= {aim:g}", value >= aim)
