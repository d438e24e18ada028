"""The model card: `docs/smallworld.md`, written from measured figures and recorded facts alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perdure.measuring.features import MetricEncoder
from perdure.outputs import output_folder
from perdure.quiet import StableDiffusionPipeline
from perdure.smallworld.figures import Quality
from perdure.smallworld.world import (
    ACCESSORIES,
    BACKGROUNDS,
    DOMAINS,
    EXPRESSIONS,
    SIZE,
    SPLITS,
    STYLES,
)

__all__ = ["FACTS", "model_facts", "stage_facts", "write_card"]

FACTS: Mapping[str, str] = {
    "parts": 'a list of {"name", "architecture", "parameters"}, from `model_facts`',
    "stages": 'a list of {"name", "steps", "batch", "seed", "losses", "seconds", "hardware"}, '
    "from `stage_facts`",
    "training_pictures": "how many pictures were rendered for training",
    "held_out_pictures": "how many were rendered to watch the training",
    "bytes": "size of the shipped files, in bytes",
    "command": "the command that measured the figures",
    "hardware": "the machine that measured them",
}
"""What `write_card` needs. `grid` (a path relative to the card) and `notes` may be added."""

_STAGE = ("name", "steps", "batch", "seed", "losses", "seconds", "hardware")
_TAIL = 20


def model_facts(pipeline: StableDiffusionPipeline, encoder: MetricEncoder) -> list[dict[str, Any]]:
    """The entries of `parts`: name, architecture in a line, and parameters of each model."""
    stock: Any = pipeline  # the parts are attributes that type checkers do not see
    text, vae, unet = stock.text_encoder, stock.vae, stock.unet
    words, clip = text.config, encoder.model.config
    seen: Any = clip.vision_config
    side = SIZE // 2 ** (len(vae.config.block_out_channels) - 1)
    described = {
        "text encoder": (
            text,
            f"CLIPTextModel, {words.num_hidden_layers} layers of width {words.hidden_size}, "
            f"{words.max_position_embeddings} positions, {words.vocab_size} tokens",
        ),
        "autoencoder": (
            vae,
            f"AutoencoderKL, channels {_channels(vae.config.block_out_channels)}, latents "
            f"{side} × {side} × {vae.config.latent_channels}",
        ),
        "U-Net": (
            unet,
            f"UNet2DConditionModel, channels {_channels(unet.config.block_out_channels)}, "
            f"cross-attention of width {unet.config.cross_attention_dim}, "
            f"{stock.scheduler.config.prediction_type}",
        ),
        "metric encoder": (
            encoder.model,
            f"CLIPModel, vision {seen.num_hidden_layers} layers of width {seen.hidden_size} with "
            f"patches of {seen.patch_size}, embeddings of width "
            f"{clip.projection_dim}",
        ),
    }
    parts: list[dict[str, Any]] = [
        {
            "name": name,
            "architecture": line,
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        for name, (model, line) in described.items()
    ]
    if encoder.identity_weight is not None:
        out, into = encoder.identity_weight.shape
        bias = 0 if encoder.identity_bias is None else out
        line = f"linear, {into} to {out}, on the metric encoder's pooled output"
        parts.append(
            {"name": "identity head", "architecture": line, "parameters": into * out + bias}
        )
    return parts


def stage_facts(folder: Path, *, name: str, batch: int, seed: int, hardware: str) -> dict[str, Any]:
    """One entry of `stages`, from the `log.jsonl` that the training loop wrote in ``folder``.

    Losses that every row has are means over the last 20 rows; a check's figures are the last ones.
    Raises ValueError for a log without a row.
    """
    lines = (folder / "log.jsonl").read_text().splitlines()
    rows: list[dict[str, float]] = [json.loads(line) for line in lines if line.strip()]
    if not rows:
        raise ValueError(f"{folder / 'log.jsonl'} has no row: the stage has not run")
    tail = rows[-_TAIL:]
    losses: dict[str, float] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        if key in ("step", "seconds", "lr", "norm"):
            continue
        found = [row[key] for row in tail if key in row]
        if len(found) == len(tail):
            losses[key] = sum(found) / len(found)
        else:
            losses[key] = [row[key] for row in rows if key in row][-1]
    return {
        "name": name,
        "steps": int(rows[-1]["step"]),
        "batch": batch,
        "seed": seed,
        "losses": losses,
        "seconds": rows[-1]["seconds"],
        "hardware": hardware,
    }


def write_card(path: Path, *, quality: Quality, facts: Mapping[str, object]) -> None:
    """Write the model card as Markdown; every measured number is in ``quality`` or ``facts``.

    ``facts`` holds the keys of `FACTS`. Raises ValueError that names what is missing.
    """
    known: Mapping[str, Any] = facts
    for key, meaning in FACTS.items():
        if key not in known:
            raise ValueError(f"facts: {key!r} is missing; give {meaning}")
    for stage in known["stages"]:
        if missing := [key for key in _STAGE if key not in stage]:
            raise ValueError(
                f"facts: the stage {stage.get('name', '?')!r} lacks {', '.join(missing)}; "
                "give what `stage_facts` gives"
            )
    output_folder(path.parent)
    path.write_text(_card(quality, known), encoding="utf-8")


def _channels(widths: Sequence[int]) -> str:
    return ", ".join(str(width) for width in widths)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:,.0f} s ({minutes / 60:.1f} h)" if minutes >= 60 else f"{seconds:,.0f} s"


def _parts(facts: Mapping[str, Any]) -> str:
    rows = [
        (part["name"], part["architecture"], f"{part['parameters']:,}") for part in facts["parts"]
    ]
    return _table(("part", "architecture", "parameters"), rows)


def _stages(facts: Mapping[str, Any]) -> str:
    rows = [
        (
            stage["name"],
            f"{stage['steps']:,}",
            f"{stage['batch']:,}",
            str(stage["seed"]),
            ", ".join(f"{key} {value:.4g}" for key, value in stage["losses"].items()),
            _duration(stage["seconds"]),
            stage["hardware"],
        )
        for stage in facts["stages"]
    ]
    head = ("stage", "steps", "batch", "seed", "losses and checks at the end", "time", "hardware")
    return _table(head, rows)


def _splits() -> str:
    use = {
        "training": "the weights below",
        "tuning": "choosing hyper-parameters of methods",
        "benchmark": "concepts that methods learn in benchmarks",
        "held-out": "the figures below, and watching the training",
    }
    rows = [
        (name, f"{seeds.start:,} to {seeds.stop - 1:,}", use[name])
        for name, seeds in SPLITS.items()
    ]
    return _table(("split", "identity seeds of each domain", "used for"), rows)


def _figures(quality: Quality) -> str:
    verdict = {True: "yes", False: "**no**", None: ""}
    rows = [(row.name, row.value, row.aim, verdict[row.ok]) for row in quality.rows()]
    return _table(("figure", "measured", "aim", "reached"), rows)


def _card(quality: Quality, facts: Mapping[str, Any]) -> str:
    missed = [row.name for row in quality.rows() if row.ok is False]
    reached = (
        f"These figures miss their aim: {'; '.join(missed)}."
        if missed
        else "Every figure that has an aim reaches it."
    )
    grid = (
        f"\n![Real renders, and pictures drawn from the same prompts]({facts['grid']})\n\n"
        "For each domain a row of real renders and, below it, the pictures that the base drew from "
        "the same prompts.\n"
        if "grid" in facts
        else ""
    )
    notes = f"\n{facts['notes']}\n" if facts.get("notes") else ""
    worn = len({word for words in ACCESSORIES.values() for word in words} - {"none"})
    return f"""# smallworld, the embedded base

<!-- Written by perdure.smallworld.card from measured figures: change it there. -->

A small text-to-image model of Stable Diffusion's architecture, trained from nothing on a drawn
world of {SIZE} × {SIZE} pictures. It ships inside the package, so that perdure can be tried, tested
and measured without a download, and it is an instrument: what is in its pictures is known exactly.
Stock libraries load it: `StableDiffusionPipeline.from_pretrained` on the folder `base`,
`CLIPModel.from_pretrained` on the folder `encoder`. All shipped files together are
{facts["bytes"] / 1e6:.1f} MB (fp16, safetensors). Licence: Apache-2.0.

## Architecture

{_parts(facts)}

The pipeline's text encoder is the metric encoder's text tower, the same weights in both folders.
Each latent channel's mean and deviation are folded into the autoencoder's `quant_conv` and
`post_quant_conv`, so that the stock pipeline's single scale, 1, is right.

## Data

Everything is drawn by `perdure.smallworld.world`, a pure function of (domain, identity seed, render
seed, context). No photograph, no downloaded picture and no person's likeness was used. There are
{len(DOMAINS)} domains ({", ".join(DOMAINS)}), {len(BACKGROUNDS)} backgrounds, {worn} accessories,
{len(EXPRESSIONS)} expressions and {len(STYLES)} styles. Captions name background, accessory,
expression and style; an identity they describe only coarsely. The U-Net also reads captions in
which a subject has a *name* instead: one state, made from all parameters of a training identity by
a small network that is not shipped. So it learns what to draw when its keys and values are asked
for one identity, as a larger model does from the names in its captions; what is shipped knows no
name.

- {facts["training_pictures"]:,} pictures were rendered for training, in pairs that show one cast in
  two contexts; {facts["held_out_pictures"]:,} of held-out identities to watch the training.
- Identity seeds are split for good:

{_splits()}

## Recipe

`python -m perdure.smallworld.train data|clip|vae|unet|assemble` makes a base from nothing;
`vision|decoder|further` start from the shipped weights, train one part of them further and put it
back. Each stage resumes after a kill. Under `torchrun --nproc-per-node 2` two processes share a
stage and average their weights every 8 steps; the U-Net was trained so, and its batch is that of
both together. Stages are listed in the order in which they ran.

{_stages(facts)}

1. **clip**: contrast of picture with caption, and of two pictures of one cast (identity head).
2. **vae**: L1 weighted towards the middle, L1 of the gradients, and a small KL term.
3. **unet** on cached latents: v-prediction with zero terminal SNR (arXiv 2305.08891), min-SNR
   weighting (arXiv 2303.09556), captions left out at times for guidance, names in most of the
   others, averaged weights.
4. **vision**: the image tower, the projections and the identity head further, the text tower
   frozen; linear readers of every attribute, and comparisons with prompts that differ in one.
5. **further**: the U-Net on, from its shipped weights.
{notes}
## Quality

Measured by `{facts["command"]}` on {facts["hardware"]}, seed {quality.seed}: {quality.pictures}
pictures drawn from the prompts of held-out identities, {quality.steps} steps, guidance
{quality.guidance:g}. {reached}

{_figures(quality)}
{grid}
- **Autoencoder PSNR**: mean over held-out renders, every style and domain equally frequent; "photos
  of people" are photo-style portraits.
- **Identity AUC**: probability that two photo-style renders of one held-out identity, in different
  contexts, are nearer (cosine of the identity features) than those of two identities of a domain.
- **Recognised**: share of pictures whose true prompt is the nearest, by the metric encoder, among
  prompts that differ in this attribute alone; in drawn pictures, and in real renders of the same
  scenes. The aim is set on their ratio. Where the encoder does no better than guessing in the
  renders themselves, the ratio says nothing and counts as missed.
- **Distances**: squared MMD with the kernel (x.y/d + 1)^2 and Fréchet distance of image embeddings,
  from drawn pictures to renders of other identities; beside them the same from real renders, which
  is what a perfect base would score. Compare at equal numbers of pictures only.

## Use, and limits

For trying perdure, for its tests, and for benchmarks of continual learning whose ground truth is
known. A method's order on smallworld is a hypothesis about larger models, not a result on them.

- **Not for photographs.** The autoencoder has seen drawings alone; photographs come back wrong. Use
  a Stable Diffusion checkpoint for them.
- **Identities are drawn.** A person is a short list of numbers, not a face; nothing here can
  recognise or depict a real person.
- **The metric encoder was trained on the same world**, on the same training pictures and captions
  as the base, and its text tower is the base's text encoder. So its scores compare with scores of
  the same encoder only, never with those of CLIP or DINO on photographs; they can be blind to
  faults that both share; and high recognition says that a picture is right for this world's words,
  not that it is good. That is why each score stands beside the same score of real renders. Held-out
  identities test new subjects, not a new renderer.
- **Words** outside the world's vocabulary fall apart into letters and mean nothing to the model.
- **Captions say little** about an identity by design: a particular one can't be asked for in words,
  it has to be learned.
"""
