"""Other people's models give, through us, the numbers that their own code gives."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import CAPTIONS, tiny_bert, tiny_model
from PIL import Image

from gapless.core.errors import DataRefused, UsageError
from gapless.core.geometry import unit_norm
from gapless.modalities.image import ImageInput, ImageModality
from gapless.models.aligner import GaplessModel
from gapless.models.fingerprint import fingerprint_of
from gapless.models.image_processors import image_input_of
from gapless.models.load import load_model
from gapless.models.spec import input_spec
from gapless.models.tokenizers import train_tokenizer

TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def smooth_image(width: int = 40, height: int = 30) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([128 + 100 * np.sin(x / 7 + c) * np.cos(y / 5) for c in range(3)], axis=-1).astype(np.uint8)


@pytest.fixture
def clip_directory(tmp_path: Path) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    tokenizer = train_tokenizer(CAPTIONS, 200, 24)
    config = CLIPConfig(
        text_config={**TINY, "vocab_size": 300, "max_position_embeddings": 24, "eos_token_id": tokenizer.sep_token_id},
        vision_config={**TINY, "image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    config.text_config.projection_dim = config.vision_config.projection_dim = 12
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessor(**size).save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def pixels_of(model: GaplessModel, image: np.ndarray) -> torch.Tensor:
    preprocessor = model.preprocessor("image")
    return preprocessor.collate([preprocessor.prepare(image)])["pixel_values"]


def features(output: object) -> torch.Tensor:
    return getattr(output, "pooler_output", output)  # transformers 5 wraps what 4 gave bare


def test_a_clip_directory_embeds_as_transformers_does(clip_directory: Path) -> None:
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    theirs = CLIPModel.from_pretrained(clip_directory).eval()
    ours = load_model([clip_directory])
    inputs = AutoTokenizer.from_pretrained(clip_directory)(CAPTIONS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        text = features(theirs.get_text_features(inputs["input_ids"], attention_mask=inputs["attention_mask"]))
        image = features(theirs.get_image_features(pixels_of(ours, smooth_image())))
    torch.testing.assert_close(ours.encode("text", CAPTIONS), unit_norm(text), atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.encode("image", [smooth_image()]), unit_norm(image), atol=1e-6, rtol=0)
    their_pixels = CLIPImageProcessor.from_pretrained(clip_directory)(smooth_image(), return_tensors="pt")
    difference = (their_pixels["pixel_values"] - pixels_of(ours, smooth_image())).abs()
    assert difference.mean() < 0.02
    assert not any(parameter.requires_grad for parameter in ours.encoders.parameters())


def test_a_foreign_model_is_saved_and_read_like_one_of_ours(clip_directory: Path, tmp_path: Path) -> None:
    model = load_model([clip_directory])
    model.save_pretrained(tmp_path / "saved")
    again = load_model([tmp_path / "saved"])
    torch.testing.assert_close(again.encode("text", CAPTIONS), model.encode("text", CAPTIONS))
    assert fingerprint_of(again) == fingerprint_of(model)


def test_the_fingerprint_sees_one_changed_weight(clip_directory: Path) -> None:
    model = load_model([clip_directory])
    before = fingerprint_of(model)
    next(model.encoders.parameters()).data.view(-1)[0] += 1e-3
    assert fingerprint_of(model) != before


def test_a_siglip_directory_embeds_as_transformers_does(tmp_path: Path) -> None:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    torch.manual_seed(0)
    tokenizer = train_tokenizer(CAPTIONS, 200, 16)
    config = SiglipConfig(
        text_config={
            **TINY,
            "vocab_size": 300,
            "max_position_embeddings": 16,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "projection_size": 16,
        },
        vision_config={**TINY, "image_size": 32, "patch_size": 8},
    )
    theirs = SiglipModel(config).eval()
    theirs.save_pretrained(tmp_path)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ours = load_model([tmp_path])
    ids = tokenizer(CAPTIONS, padding="max_length", max_length=16, truncation=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        text = features(theirs.get_text_features(ids))
        image = features(theirs.get_image_features(pixels_of(ours, smooth_image())))
    torch.testing.assert_close(ours.encode("text", CAPTIONS), unit_norm(text), atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.encode("image", [smooth_image()]), unit_norm(image), atol=1e-6, rtol=0)
    assert ours.config.modalities["image"]["input"]["fit"] == "stretch"


OPEN_CLIP = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def write_open_clip(directory: Path, config: dict[str, object]) -> object:
    open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed")
    pytest.importorskip("torchvision", reason="open_clip needs torchvision")
    from open_clip.model import CLIP, CustomTextCLIP
    from safetensors.torch import save_file

    torch.manual_seed(0)
    own = dict(config)
    model = (CustomTextCLIP if own.pop("custom_text", False) else CLIP)(**json.loads(json.dumps(own))).eval()
    directory.mkdir(parents=True, exist_ok=True)
    preprocess = {"size": [32, 32], "mean": [0.5] * 3, "std": [0.25] * 3, "resize_mode": "squash"}
    written = {"model_cfg": config, "preprocess_cfg": {**preprocess, "interpolation": "bicubic", "mode": "RGB"}}
    (directory / "open_clip_config.json").write_text(json.dumps(written))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, directory / "open_clip_model.safetensors")
    assert open_clip is not None
    return model


def test_an_open_clip_directory_embeds_as_open_clip_does(tmp_path: Path) -> None:
    write_open_clip(tmp_path / "oc", OPEN_CLIP)
    import open_clip

    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'oc'}")
    theirs.eval()
    ours = load_model([f"local-dir:{tmp_path / 'oc'}"])
    with torch.no_grad():
        text = theirs.encode_text(open_clip.get_tokenizer(f"local-dir:{tmp_path / 'oc'}")(CAPTIONS), normalize=True)
        image = theirs.encode_image(pixels_of(ours, smooth_image()), normalize=True)
    torch.testing.assert_close(ours.encode("text", CAPTIONS), text, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.encode("image", [smooth_image()]), image, atol=1e-6, rtol=0)
    their_pixels = transform(Image.fromarray(smooth_image()))
    assert (their_pixels - pixels_of(ours, smooth_image())[0]).abs().mean() < 0.02
    ours.save_pretrained(tmp_path / "saved")
    again = GaplessModel.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(again.encode("text", CAPTIONS), text, atol=1e-6, rtol=0)


def test_an_open_clip_text_tower_of_transformers_needs_no_network_once_saved(tmp_path: Path) -> None:
    """BiomedCLIP is of this kind: open_clip would ask the hub for the text tower's configuration at every load."""
    from transformers import BertConfig

    folder = tmp_path / "oc"
    config = BertConfig(**{k: v for k, v in tiny_bert(300).items() if k != "model_type"})
    config.save_pretrained(tmp_path / "bert")
    text = {"hf_model_name": str(tmp_path / "bert"), "hf_model_pretrained": False, "hf_proj_type": "mlp"}
    text |= {"hf_pooler_type": "cls_last_hidden_state_pooler", "hf_tokenizer_name": str(tmp_path), "context_length": 16}
    theirs = write_open_clip(folder, {**OPEN_CLIP, "custom_text": True, "text_cfg": text})
    tokenizer = train_tokenizer(CAPTIONS, 200, 16)
    tokenizer.save_pretrained(folder)
    ours = load_model([folder])
    ids = tokenizer(CAPTIONS, padding="max_length", max_length=16, truncation=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = theirs.encode_text(ids, normalize=True)
    torch.testing.assert_close(ours.encode("text", CAPTIONS), expected, atol=1e-6, rtol=0)
    ours.save_pretrained(tmp_path / "saved")
    (tmp_path / "bert" / "config.json").unlink()  # what the hub held is gone
    again = GaplessModel.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(again.encode("text", CAPTIONS), expected, atol=1e-6, rtol=0)


def write_pair(folder: Path) -> None:
    from transformers import BertConfig, BertModel, ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    ViTModel(ViTConfig(**TINY, image_size=32, patch_size=8)).save_pretrained(folder / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "vit")
    BertModel(BertConfig(**{**tiny_bert(300, hidden=24), "num_attention_heads": 2})).save_pretrained(folder / "bert")
    train_tokenizer(CAPTIONS, 200, 24).save_pretrained(folder / "bert")


def test_separate_encoders_keep_their_own_sizes(tmp_path: Path) -> None:
    write_pair(tmp_path)
    model = load_model([f"image={tmp_path / 'vit'}", f"text={tmp_path / 'bert'}"])
    assert model.encode("image", [smooth_image()]).shape == (1, 16)
    assert model.encode("text", CAPTIONS).shape == (len(CAPTIONS), 24)
    assert model.config.embedding_dim is None
    assert model.loss is None
    model.save_pretrained(tmp_path / "saved")
    again = GaplessModel.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(again.encode("text", CAPTIONS), model.encode("text", CAPTIONS))


def test_the_pooling_of_sentence_transformers_is_read_and_can_be_named(tmp_path: Path) -> None:
    write_pair(tmp_path)
    sources = [f"image={tmp_path / 'vit'}", f"text={tmp_path / 'bert'}"]
    modules = [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]
    (tmp_path / "bert" / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "bert" / "1_Pooling").mkdir()
    pooling = tmp_path / "bert" / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    assert load_model(sources).config.modalities["text"]["encoder"]["pooling"] == "cls"
    assert load_model([sources[0], f"{sources[1]}@mean"]).config.modalities["text"]["encoder"]["pooling"] == "mean"
    (tmp_path / "bert" / "modules.json").write_text(json.dumps([*modules, {"path": "2_Dense", "type": "x.Dense"}]))
    with pytest.raises(UsageError, match="Dense"):
        load_model(sources)


def image_spec(described: dict[str, object]) -> ImageInput:
    spec = input_spec(described)
    assert isinstance(spec, ImageInput)
    return spec


def test_an_image_directory_says_how_it_wants_its_images(tmp_path: Path) -> None:
    from transformers import BitImageProcessor

    asked = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 3}
    BitImageProcessor(**asked).save_pretrained(tmp_path)
    spec = image_input_of(tmp_path)
    assert (spec["fit"], spec["resize"], spec["size"]) == ("crop", 40, 32)
    theirs = BitImageProcessor.from_pretrained(tmp_path)(smooth_image(80, 60), return_tensors="np")["pixel_values"]
    ours = ImageModality(image_spec(spec))
    mine = ours.collate([ours.prepare(smooth_image(80, 60))])["pixel_values"].numpy()
    assert np.abs(theirs - mine).mean() < 0.03
    whole = ImageModality(image_spec({**spec, "resize": 32}))  # the control: another crop is another picture
    other = whole.collate([whole.prepare(smooth_image(80, 60))])["pixel_values"].numpy()
    assert np.abs(theirs - other).mean() > 0.1


def test_our_own_directories_load_by_the_same_door(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path / "run" / "model")
    for source in (tmp_path / "run", tmp_path / "run" / "model"):
        torch.testing.assert_close(load_model([source]).encode("text", CAPTIONS), model.encode("text", CAPTIONS))


@pytest.mark.parametrize(
    ("sources", "error", "said"),
    [
        (["{tmp}/empty"], DataRefused, "lacks config.json"),
        (["{tmp}/bert"], UsageError, "image=DIR text=DIR"),
        (["image={tmp}/vit@max", "text={tmp}/bert"], UsageError, "known: cls"),
        (["{tmp}/vit", "{tmp}/bert"], UsageError, "MODALITY=DIRECTORY"),
        (["local-dir:{tmp}/empty"], UsageError, "holds no model"),
    ],
)
def test_what_is_no_model_is_refused_with_a_way_out(
    tmp_path: Path, sources: list[str], error: type[Exception], said: str
) -> None:
    write_pair(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=said):
        load_model([source.format(tmp=tmp_path) for source in sources])


def test_an_architecture_without_weights_is_refused() -> None:
    pytest.importorskip("open_clip", reason="open_clip is not installed")
    with pytest.raises(UsageError, match="ViT-B-32@CHECKPOINT"):
        load_model(["ViT-B-32"])
