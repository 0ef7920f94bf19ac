"""What lines say beside captions: repeated texts, nearest texts, confidences, and captions that are not given."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import CAPTIONS, tiny_modalities

import gapless
from gapless.captioning import CaptionSettings, GenerationSettings, calibrate_captions
from gapless.captioning.caption_files import read_captions
from gapless.captioning.clinical import Errors
from gapless.captioning.confidence import UNREACHED, Confidence, fit_confidence, is_right, reliability, threshold_of
from gapless.captioning.train_texts import TrainTexts
from gapless.core.errors import DataRefused, UsageError
from gapless.manifest.readers.phantom import write_phantom
from gapless.training.recipes import Recipe
from gapless.training.run import new_model

GREEDY = GenerationSettings("greedy")
FIT = {"level": 0.5, "least_right": 0.8, "settings": {}, "split": "validation"}


def drawn(num_rows=2000, seed=0):
    """Captions whose chance to be right is that of a logistic function of their score."""
    random = np.random.default_rng(seed)
    scores = random.normal(-1, 1, num_rows)
    right = random.random(num_rows) < 1 / (1 + np.exp(-(3 * scores + 3)))
    return scores.tolist(), ["a mass"] * num_rows, right.tolist(), [row // 2 for row in range(num_rows)]


def test_confidences_are_the_chances_that_the_captions_were_drawn_with():
    scores, captions, right, groups = drawn()
    made, held_out = fit_confidence(scores, captions, right, groups, **FIT)
    for score in (-2.5, -1.0, 0.5):
        assert made.of(score, "a mass") == pytest.approx(1 / (1 + np.exp(-(3 * score + 3))), abs=0.05)
    curve = reliability(held_out, right)
    assert curve["error"] < 0.04
    assert sum(one["n"] for one in curve["bins"]) == 2000
    other = np.random.default_rng(1).permutation(held_out)
    assert reliability(other, right)["error"] > 0.2, "the control: confidences of other captions"


def test_the_threshold_keeps_what_it_promises_on_new_captions():
    made, _ = fit_confidence(*drawn(), **FIT)
    scores, _, right, _ = drawn(seed=5)
    answered = [truth for score, truth in zip(scores, right, strict=True) if made.of(score, "a mass") >= made.threshold]
    assert np.mean(answered) == pytest.approx(0.8, abs=0.04)
    assert len(answered) > 500
    assert np.mean(right) < 0.6, "the control: of all captions far fewer are right"
    assert threshold_of(np.array([0.9, 0.5]), np.array([0, 1]), 0.9) == UNREACHED


def test_what_right_means():
    assert is_right(Errors(named=("mass",), invented=("cyst",)), 0.5)
    assert not is_right(Errors(named=("mass",), invented=("cyst", "edema"), missed=("fracture",)), 0.5)
    assert is_right(Errors(), 0.5), "neither names a finding"


def test_what_cannot_be_calibrated_is_refused():
    scores, captions, right, groups = drawn(60)
    with pytest.raises(DataRefused, match="too few to calibrate"):
        fit_confidence(scores[:9], captions[:9], right[:9], groups[:9], **FIT)
    with pytest.raises(DataRefused, match="in 1 groups are too few"):
        fit_confidence(scores, captions, right, [0] * 60, **FIT)
    with pytest.raises(DataRefused, match="all 60 validation captions are right"):
        fit_confidence(scores, captions, [True] * 60, groups, **FIT)
    with pytest.raises(UsageError, match="level is a number above 0"):
        fit_confidence(scores, captions, right, groups, **{**FIT, "level": 0})


def test_repeated_texts_are_known_by_their_numbers_alone():
    known = TrainTexts.of([*CAPTIONS, "  "])
    assert known.texts is None
    assert known.has("Chest  radiograph, left pleural EFFUSION.")
    assert not known.has("chest radiograph, right pleural effusion")
    assert not known.has("")
    assert len(known.numbers) == len(CAPTIONS)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`data`, `model`, and the caption runs `run` and `stored`, which are trained a little."""
    home = tmp_path_factory.mktemp("trust")
    data = write_phantom(home / "data", num_pairs=130, num_validation=40, num_test=20, image_size=16)
    torch.manual_seed(0)
    recipe = Recipe(modalities=tiny_modalities(), embedding_dim=24, vocab_size=400)
    new_model(recipe, data.first_captions).save_pretrained(home / "model")
    training = {"num_train_epochs": 6, "per_device_train_batch_size": 16, "learning_rate": 5e-3}
    training |= {"eval_strategy": "no", "save_strategy": "no"}
    decoder = {"model_type": "bert", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    for name, stored in (("run", False), ("stored", True)):
        asked = CaptionSettings(decoder=decoder, max_tokens=16, training=training, store_texts=stored)
        gapless.train_captioner(home / "model", data=home / "data", out=home / name, settings=asked)
    return home


def lines_of(place, name, tmp_path, **options):
    out = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
    gapless.caption(place / name, data=place / "data", out=out, settings=GREEDY, **options)
    return read_captions(out)


def test_training_texts_lie_in_the_model_only_where_they_were_stored(place):
    plain = json.loads((place / "run" / "model" / "train_texts.json").read_text())
    assert plain["texts"] is None
    stored = json.loads((place / "stored" / "model" / "train_texts.json").read_text())
    assert len(stored["texts"]) == len(plain["numbers"]) > 50


def test_a_file_of_before_near_texts_could_vote_is_still_the_same_captions(place, tmp_path):
    """Its settings say nothing of them. Other settings that it lacks, and other values, are refused."""
    out = tmp_path / "c.jsonl"
    asked = {"data": place / "data", "out": out}
    gapless.caption(place / "run", **asked, settings=GREEDY)
    beside = tmp_path / "c.jsonl.json"
    made = json.loads(beside.read_text())
    for name in ("near_texts", "near_temperature", "repeat_texts"):
        del made["settings"][name]
    beside.write_text(json.dumps(made))
    assert gapless.caption(place / "run", **asked, settings=GREEDY).captions == 20
    with pytest.raises(UsageError, match="near_texts"):
        gapless.caption(place / "run", **asked, settings=replace(GREEDY, near_texts=3))


def test_nearest_training_texts_are_shown_where_they_are_asked_for(place, tmp_path):
    assert not any("nearest" in line for line in lines_of(place, "stored", tmp_path).values())
    from_data = lines_of(place, "run", tmp_path, nearest=3)
    stored = lines_of(place, "stored", tmp_path, nearest=3)
    for id, line in from_data.items():
        cosines = [one["cosine"] for one in line["nearest"]]
        assert len(cosines) == 3
        assert cosines == sorted(cosines, reverse=True)
        assert [one["text"] for one in line["nearest"]] == [one["text"] for one in stored[id]["nearest"]]
    image = next((place / "data" / "images").rglob("*.png"))
    with pytest.raises(UsageError, match="stored none: train it with --store_texts true"):
        gapless.caption(place / "run", images=[image], nearest=1)
    shown = gapless.caption(place / "stored", images=[image], nearest=1, settings=GREEDY)
    assert len(shown.lines[0]["nearest"]) == 1


def test_a_caption_that_repeats_a_training_text_is_marked(place, tmp_path):
    lines = lines_of(place, "run", tmp_path)
    assert not any("repeats_training_text" in line for line in lines.values())
    path = place / "run" / "model" / "train_texts.json"
    before = path.read_text()
    some = next(iter(lines.values()))["caption"]
    try:
        TrainTexts.of([some]).write(path.parent)
        marked = lines_of(place, "run", tmp_path)
    finally:
        path.write_text(before)
    expected = {id for id, line in lines.items() if line["caption"] == some}
    assert {id for id, line in marked.items() if line.get("repeats_training_text")} == expected


def test_a_calibrated_captioner_says_how_sure_it_is_and_when_it_does_not_know(place, tmp_path):
    with pytest.raises(UsageError, match="has no calibrated confidence"):
        lines_of(place, "stored", tmp_path, abstain=True)
    with pytest.raises(UsageError, match="knows its train rows"):
        calibrate_captions(place / "stored", data=place / "data", split="train")
    made = calibrate_captions(place / "stored", data=place / "data", settings=GREEDY, level=0.1, least_right=0.9)
    assert made.n == 40
    stored = Confidence.read(place / "stored" / "model")
    lines = lines_of(place, "stored", tmp_path)
    for line in lines.values():
        assert line["confidence"] == pytest.approx(stored.of(line["score"], line["caption"]), abs=1e-3)
    some = sorted(line["confidence"] for line in lines.values())[10]
    Confidence(**{**vars(stored), "threshold": some}).write(place / "stored" / "model")
    silent = lines_of(place, "stored", tmp_path, abstain=True)
    for id, line in silent.items():
        assert bool(line.get("does_not_know")) == (lines[id]["confidence"] < some)
        assert line["caption"] == ("" if line.get("does_not_know") else lines[id]["caption"])
    with pytest.raises(UsageError, match="calibrated for other generation settings"):
        gapless.caption(place / "stored", data=place / "data", out=tmp_path / "b.jsonl", abstain=True)
    assert not (tmp_path / "b.jsonl").exists()
    (place / "stored" / "model" / "confidence.json").write_text('{"weights": [1]}')
    with pytest.raises(DataRefused, match="is damaged; make it again"):
        lines_of(place, "stored", tmp_path)
    (place / "stored" / "model" / "confidence.json").unlink()


def test_the_report_draws_the_reliability(place, tmp_path):
    calibrate_captions(place / "run", data=place / "data", settings=GREEDY, level=0.1)
    gapless.caption(place / "run", data=place / "data", settings=GREEDY)
    scores = gapless.evaluate_captions(place / "run", data=place / "data", num_bootstrap=0).as_json()
    assert scores["reliability"]["n"] == 20
    assert scores["reliability"]["level"] == 0.1
    page = gapless.report([place / "run"], out=tmp_path / "report.html").report.read_text(encoding="utf-8")
    assert "<h2>Reliability</h2>" in page
