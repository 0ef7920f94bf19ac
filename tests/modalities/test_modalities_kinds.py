"""What every registered kind of modality does, and that checking needs no torch."""

import subprocess
import sys

import numpy as np
import pytest
from data_samples import noise_image

from gapless.core.errors import DataRefused, UsageError
from gapless.images.thumbnails import thumbnail
from gapless.manifest.verify import encode_png
from gapless.modalities.base import MODALITIES, build_modality
from gapless.modalities.image import ImageInput, ImageModality
from gapless.modalities.text import TextInput, TextModality
from gapless.modalities.vector import VectorInput, VectorModality
from gapless.models.spec import input_spec, modality_spec
from gapless.models.tokenizers import train_tokenizer

SETTINGS = {"image": {"size": 8}, "text": {"max_length": 8}, "vector": {"size": 5}}


@pytest.fixture(params=SETTINGS)
def kind(request):
    """A modality of each kind, with its settings."""
    tokenizer = train_tokenizer(["normal chest radiograph"] * 4, 300, 8)
    return build_modality(input_spec({"kind": request.param, **SETTINGS[request.param]}), tokenizer)


def test_all_kinds_are_registered_under_the_name_of_their_input():
    assert set(SETTINGS) <= set(MODALITIES)
    assert all(name == kind.Input.kind for name, kind in MODALITIES.items())


def test_made_up_inputs_become_rows_of_tensors_and_have_a_preview(kind):
    raws = kind.sample(3, np.random.default_rng(0))
    tensors = kind.collate([kind.prepare(raw) for raw in raws])
    assert {len(tensor) for tensor in tensors.values()} == {3}
    assert isinstance(kind.preview(raws[0]), bytes | str)
    assert kind.fit(kind.settings, raws) == kind.settings


def test_a_model_can_be_made_of_a_kind_without_naming_an_encoder(kind):
    name = kind.settings.kind
    assert modality_spec("x", {"input": {"kind": name, **SETTINGS[name]}}).encoder.trainable


def test_facts_of_an_item_and_its_refusal():
    png = encode_png(np.asarray(noise_image(1)))
    height, width = np.asarray(noise_image(1)).shape[:2]
    assert ImageModality.check(png, {}) == {"width": width, "height": height}
    assert TextModality.check("knee", {}) == {"characters": 4}
    assert VectorModality.check([1, 2], {}) == {"size": 2}
    for modality, item in ((ImageModality, b"x"), (TextModality, " "), (VectorModality, [1.0, float("nan")])):
        with pytest.raises(DataRefused):
            modality.check(item, {})


def test_a_preview_of_an_image_is_its_thumbnail():
    png = encode_png(np.asarray(noise_image(1)))
    assert ImageModality(ImageInput()).preview(png) == thumbnail(png)


def test_queries_are_checked_by_their_kind():
    assert TextModality(TextInput()).parse_query("cyst") == "cyst"
    with pytest.raises(UsageError, match="the query is empty"):
        TextModality(TextInput()).parse_query(" ")
    with pytest.raises(UsageError, match="an image is a path"):
        ImageModality(ImageInput()).parse_query(3)
    vector = VectorModality(VectorInput(2))
    assert vector.parse_query([1, 2]).tolist() == vector.parse_query("[1, 2]").tolist() == [1.0, 2.0]
    for value in ("cyst", b"x", [1, 2, 3], [1, float("nan")]):
        with pytest.raises(UsageError, match=r"vector|numbers"):
            vector.parse_query(value)


def test_checking_items_needs_no_torch():
    program = "import sys; from gapless.modalities import image, text, vector; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
