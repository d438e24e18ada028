"""Parts of tiny random pipelines: tokenizers, text encoders, an autoencoder, the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, AutoencoderKLQwenImage
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    Gemma2Config,
    GemmaTokenizer,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    Qwen3Config,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from perdure.smallworld.train.vocabulary import make_tokenizer

HINTS = {
    "size": "32x32",
    "learning": {"batch_size": 2},
    "drawing": {"steps": 2, "guidance": 3.0},
}
SENTENCE = "a photo of a dog in the snow next to a person at night"


def byte_level() -> dict[str, Any]:
    """Vocabulary and merges of a byte-level BPE of one sentence."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator([SENTENCE], trainer)
    model = json.loads(learner.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


def qwen_tokenizer() -> Qwen2Tokenizer:
    """With a chat template of one line."""
    tokenizer = Qwen2Tokenizer(
        **byte_level(),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"start": "<|im_start|>"},
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
        "{% endif %}"
    )
    return tokenizer


def mistral_processor() -> LlavaProcessor:
    """A tokenizer that pads on the left and begins with <s>, as the chat template does, in a
    processor of texts and pictures; the published ones', Pixtral's, cannot be had without
    torchvision, and differs from this one in what it makes of pictures."""
    own = Tokenizer(models.BPE(**byte_level()))
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=own,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        extra_special_tokens={
            "image": "[IMG]",
            "asked": "[INST]",
            "told": "[/INST]",
            "rules": "[SYSTEM_PROMPT]",
            "ruled": "[/SYSTEM_PROMPT]",
        },
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    template = (
        "{{ bos_token }}{% for m in messages %}{% set of = {'system': 'SYSTEM_PROMPT', "
        "'user': 'INST'}[m.role] %}[{{ of }}]{% for part in m.content %}{{ part.text }}"
        "{% endfor %}[/{{ of }}]{% endfor %}"
    )
    return LlavaProcessor(
        CLIPImageProcessorPil(),
        tokenizer,
        patch_size=4,
        image_token="[IMG]",
        chat_template=template,
    )


def gemma_tokenizer() -> GemmaTokenizer:
    """A BPE of one sentence that knows every byte; a prompt begins with <bos> and has no end."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.decoder = decoders.Replace("▁", " ")
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[*specials, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    learner.train_from_iterator([SENTENCE], trainer)
    model = json.loads(learner.to_str())["model"]
    tokenizer = GemmaTokenizer(
        vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]]
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    return tokenizer


def of_gemma2(width: int, layers: int, tokenizer: Any) -> Gemma2Config:
    """A table as long as the tokenizer."""
    return Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def of_qwen3(width: int, layers: int, tokenizer: Any, *, spare: int = 8) -> Qwen3Config:
    """With a token table that has spare rows, as published ones have; it is the output's too."""
    return Qwen3Config(
        vocab_size=len(tokenizer) + spare,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        tie_word_embeddings=True,
    )


def clip(kind: Any, width: int, *, end: int | None = None) -> Any:
    """A CLIP text tower of one or two layers."""
    tokenizer = make_tokenizer()
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id if end is None else end,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def of_t5(width: int) -> tuple[Any, Any]:
    """A Unigram tokenizer of one sentence's words and letters, and an encoder of one layer."""
    pieces = [*("▁" + word for word in sorted(set(SENTENCE.split()))), "▁"]
    pieces += sorted(set(SENTENCE) - {" "})
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(piece, -float(rank)) for rank, piece in enumerate(dict.fromkeys(pieces), 1)]
    tokenizer = T5TokenizerFast(vocab=vocabulary, extra_ids=0)
    config = T5Config(
        vocab_size=max(64, len(tokenizer)),
        d_model=width,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return tokenizer, T5EncoderModel(config)


def autoencoder(*, levels: int = 3, **config: Any) -> AutoencoderKL:
    """Four channels of latents; a picture is halved between levels."""
    return AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
        mid_block_add_attention=False,
        **config,
    )


def video_autoencoder() -> AutoencoderKLQwenImage:
    """Four channels of latents; a picture is a video of one frame."""
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[2.0, 0.5, 1.5, 1.0],
    )


def saved(pipeline: Any, folder: Path) -> Path:
    """The folder, with advice that keeps tests short."""
    pipeline.save_pretrained(folder)
    (folder / "perdure.json").write_text(json.dumps(HINTS))
    return folder
