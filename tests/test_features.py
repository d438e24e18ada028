"""The metric encoder on a tiny random CLIP folder, against the model's own forward pass."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    ViTConfig,
    ViTModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from perdure.errors import PerdureError
from perdure.measuring.features import MetricEncoder

SIDE = 16


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP of hidden width 16, one layer a tower, without an identity head."""
    folder = tmp_path_factory.mktemp("clip")
    letters = sorted(set("aphotofrex"))
    merges = ["p h", "o t", "ph ot", "phot o</w>", "o f</w>", "r e", "re x</w>"]
    tokens = [*letters, *(f"{c}</w>" for c in letters)]
    tokens += [merge.replace(" ", "") for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    tower = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    end = vocab["<|endoftext|>"]
    config = CLIPConfig(
        text_config={
            **tower,
            "vocab_size": len(vocab),
            "max_position_embeddings": 8,
            "bos_token_id": vocab["<|startoftext|>"],
            "eos_token_id": end,
            "pad_token_id": end,
        },
        vision_config={**tower, "image_size": SIDE, "patch_size": 8},
        projection_dim=12,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def copy(clip, tmp_path):
    for file in clip.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def pictures(n: int = 5) -> torch.Tensor:
    data = np.random.default_rng(0).integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)
    return torch.from_numpy(data)


def pixel_values(batch: torch.Tensor) -> torch.Tensor:
    """CLIP's normalisation written out: (x / 255 - mean) / std, channels first."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    return ((batch / 255.0 - mean) / std).permute(0, 3, 1, 2)


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm(dim=1, keepdim=True)


def test_picture_features_equal_the_models_own_forward(clip):
    model = CLIPModel.from_pretrained(clip).eval()
    with torch.no_grad():
        pooled = model.vision_model(pixel_values=pixel_values(pictures())).pooler_output
        expected = unit(model.visual_projection(pooled))
    encoder = MetricEncoder.open(clip, batch_size=2)
    found = encoder.pictures(pictures())
    assert found.shape == (5, 12) and found.dtype == torch.float32 and not found.requires_grad
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_pil_pictures_of_any_size_and_mode_are_taken(clip):
    encoder = MetricEncoder.open(clip)
    images = [Image.fromarray(picture) for picture in pictures().numpy()]
    torch.testing.assert_close(encoder.pictures(images), encoder.pictures(pictures()))
    mixed = [Image.new("L", (40, 30), 90), Image.new("RGBA", (20, 50)), Image.new("P", (16, 16))]
    assert encoder.pictures(mixed).shape == (3, 12)


def test_text_features_do_not_depend_on_batching_and_long_texts_are_cut(clip):
    encoder = MetricEncoder.open(clip)
    texts = ["a photo", "rex", "a photo of rex", "photo " * 40]
    together = encoder.texts(texts)
    alone = torch.cat([encoder.texts([text]) for text in texts])
    assert together.shape == (4, 12)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_text_features_equal_the_models_own_forward(clip):
    model, tokenizer = CLIPModel.from_pretrained(clip).eval(), CLIPTokenizer.from_pretrained(clip)
    tokens = tokenizer(["a photo of rex"], return_tensors="pt")
    with torch.no_grad():
        pooled = model.text_model(input_ids=tokens["input_ids"]).pooler_output
        expected = unit(model.text_projection(pooled))
    found = MetricEncoder.open(clip).texts(["a photo of rex"])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_identity_head_is_a_linear_map_of_the_pooled_output(copy):
    generator = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(6, 16, generator=generator), torch.randn(6, generator=generator)
    save_file({"weight": weight.half(), "bias": bias.half()}, copy / "identity_head.safetensors")
    model = CLIPModel.from_pretrained(copy).eval()
    with torch.no_grad():
        pooled = model.vision_model(pixel_values=pixel_values(pictures())).pooler_output
    expected = unit(pooled @ weight.half().float().T + bias.half().float())
    encoder = MetricEncoder.open(copy, name="tiny")
    torch.testing.assert_close(encoder.identities(pictures()), expected, atol=1e-5, rtol=1e-5)
    assert encoder.identity_name == "tiny (identity head)"


DINOS = {  # model, configuration, its own sizes, the processor that published ones name
    "dinov2": (Dinov2Model, Dinov2Config, {}, "BitImageProcessor"),
    "registers": (
        Dinov2WithRegistersModel,
        Dinov2WithRegistersConfig,
        {"num_register_tokens": 2},
        "BitImageProcessor",
    ),
    "dinov3": (
        DINOv3ViTModel,
        DINOv3ViTConfig,
        {"num_register_tokens": 2},
        "DINOv3ViTImageProcessorFast",
    ),
    "dino": (ViTModel, ViTConfig, {}, "ViTImageProcessor"),
}


@pytest.mark.parametrize("kind", DINOS)
def test_dinos_class_token_is_an_embedding_and_no_text_is_read(kind, tmp_path):
    made, config, own, processor = DINOS[kind]
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 24, "image_size": SIDE, "patch_size": 8}
    model = made(config(**sizes, **own)).eval()
    model.save_pretrained(tmp_path)
    scheme = {
        "image_processor_type": processor,
        "do_center_crop": False,
        "size": {"height": SIDE, "width": SIDE},
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.25, 0.3],
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(scheme))
    mean, std = torch.tensor(scheme["image_mean"]), torch.tensor(scheme["image_std"])
    pixels = ((pictures() / 255.0 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = unit(model(pixel_values=pixels).last_hidden_state[:, 0])
    encoder = MetricEncoder.open(tmp_path)
    torch.testing.assert_close(encoder.pictures(pictures()), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(encoder.identities(pictures()), encoder.pictures(pictures()))
    with pytest.raises(ValueError, match="reads no texts"):
        encoder.texts(["a photo"])


def test_a_result_says_which_encoder_measured_it(clip, copy):
    one, other = MetricEncoder.open(clip, name="a"), MetricEncoder.open(clip, name="b")
    assert one.facts()["hash"] == other.facts()["hash"] and one.facts()["name"] == "a"
    assert one.facts()["identity"] == "image embedding"
    save_file({"weight": torch.ones(4, 16)}, copy / "identity_head.safetensors")
    headed = MetricEncoder.open(copy).facts()
    assert headed["identity"] == "identity head" and headed["hash"] != one.facts()["hash"]


def test_without_a_head_identities_are_the_image_embeddings(clip):
    encoder = MetricEncoder.open(clip)
    assert torch.equal(encoder.identities(pictures()), encoder.pictures(pictures()))
    assert encoder.identity_name.endswith("(image embedding)")


def test_weights_saved_in_half_are_computed_in_single(copy):
    CLIPModel.from_pretrained(copy).half().save_pretrained(copy)
    encoder = MetricEncoder.open(copy)
    assert {p.dtype for p in encoder.model.parameters()} == {torch.float32}
    assert encoder.pictures(pictures()).dtype == torch.float32


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (torch.zeros(2, SIDE, SIDE, 3), "uint8"),
        (torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8), "uint8"),
        ([], "at least one"),
    ],
)
def test_bad_batches_are_named(clip, batch, words):
    with pytest.raises(ValueError, match=words):
        MetricEncoder.open(clip).pictures(batch)


def test_a_lone_string_is_not_a_list_of_letters(clip):
    with pytest.raises(ValueError, match="list of at least one text"):
        MetricEncoder.open(clip).texts("rex")


def spoil_weights(folder):
    (folder / "model.safetensors").write_bytes(b"not tensors")


def drop_weights(folder):
    (folder / "model.safetensors").unlink()


def drop_processor(folder):
    (folder / "preprocessor_config.json").unlink()


def drop_tokenizer(folder):
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)


def drop_a_tensor(folder):
    tensors = CLIPModel.from_pretrained(folder).state_dict()
    tensors.pop("visual_projection.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def other_model(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "swin"}))


def other_end_token(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 5
    (folder / "config.json").write_text(json.dumps(config))


def wide_head(folder):
    save_file({"weight": torch.zeros(4, 99)}, folder / "identity_head.safetensors")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_weights, "no readable safetensors weights"),
        (drop_weights, "no readable safetensors weights"),
        (drop_processor, "preprocessor_config"),
        (drop_tokenizer, "token"),
        (drop_a_tensor, "lacks 1 weights, the first is visual_projection.weight"),
        (other_model, "give a CLIP with both towers, or a DINO"),
        (other_end_token, "pools texts at token 5"),
        (wide_head, "must hold `weight`"),
    ],
)
def test_a_bad_folder_gets_one_clear_sentence(copy, spoil, words):
    spoil(copy)
    with pytest.raises(PerdureError, match=words):
        MetricEncoder.open(copy)


def test_a_missing_folder_is_said_to_be_missing(tmp_path):
    with pytest.raises(PerdureError, match="no such folder"):
        MetricEncoder.open(tmp_path / "nowhere")
