"""Captions that near training texts vote on: agreement as CIDEr, the choice by hand, and a run that uses it."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from fakes import CAPTIONS, tiny_modalities
from test_captioning_captioner import brute_force

import gapless
from gapless.captioning import CaptionSettings, GenerationSettings, load_captioner
from gapless.captioning.caption_files import read_captions
from gapless.captioning.consensus import COUNTS, NearTexts, Ngrams, chosen_vote
from gapless.captioning.data import LengthBatches, feature_batches, sources_of
from gapless.captioning.generation import candidates_from, captions_from
from gapless.captioning.train_texts import TrainTexts
from gapless.captioning.vote import Vote
from gapless.captioning.voting import learnt_vote, turned_as_the_nearest
from gapless.core.errors import DataRefused, UsageError
from gapless.core.geometry import unit_norm
from gapless.inference.pairs import EpochSampler
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.training.recipes import Recipe
from gapless.training.run import new_model

BEAM = GenerationSettings("beam", num_beams=3)
OTHERS = ["chest radiograph with a drain", "words that nobody wrote", "", CAPTIONS[2], "MR of the liver"]


def test_agreement_is_a_tenth_of_cider_with_the_frequencies_of_the_texts():
    scorers = pytest.importorskip("pycocoevalcap.cider.cider_scorer")
    ngrams = Ngrams(CAPTIONS)
    found = ngrams.agreement(ngrams.vectors(OTHERS), ngrams.vectors(CAPTIONS))
    assert found.max() == pytest.approx(1.0)
    for shift in range(len(CAPTIONS)):
        scorer = scorers.CiderScorer()
        turned = [(place + shift) % len(CAPTIONS) for place in range(len(CAPTIONS))]
        for text, place in zip([*OTHERS, ""], turned, strict=True):
            scorer.cook_append(text.lower().replace(",", ""), [CAPTIONS[place].lower().replace(",", "")])
        expected = scorer.compute_score()[1][: len(OTHERS)]
        rows = range(len(OTHERS))
        np.testing.assert_allclose([10 * found[row, turned[row]] for row in rows], expected, atol=1e-9)


def test_texts_of_one_word_and_texts_that_all_are_the_same_agree_with_nothing():
    ngrams = Ngrams(["cyst", "Cyst."])
    assert ngrams.agreement(ngrams.vectors(["cyst", ""]), ngrams.vectors(["cyst"])).tolist() == [[0.0], [0.0]]
    wordless = Ngrams(["...", "?"])
    assert wordless.agreement(wordless.vectors(["a"]), wordless.vectors(["...", "?"])).tolist() == [[0.0, 0.0]]


def plane(*degrees):
    """[row, 2] rows at these angles."""
    return torch.tensor([[math.cos(math.radians(angle)), math.sin(math.radians(angle))] for angle in degrees])


SCENE = [
    "axial CT with a lone finding",
    "small left pleural effusion seen today",
    "left pleural effusion seen today",
    "left pleural effusion seen today again",
]
MIDDLE = SCENE[2]  # it shares its 4-grams and the most words with both others


def scene(near_texts, temperature):
    """A text at 0 degrees that is like no other, three alike at 20 degrees, and one far away."""
    return NearTexts([*SCENE, "MR of the knee"], plane(0, 20, 21, 22, 90), Vote(near_texts, temperature))


def test_texts_that_agree_outvote_the_nearest_one():
    image = plane(1)
    assert scene(4, 0.001).choose([[]], image)[0].text == SCENE[0], "a low temperature listens to the nearest alone"
    assert scene(1, 10.0).choose([[]], image)[0].text == SCENE[0]
    assert scene(4, 1.0).choose([[]], image) == [(None, MIDDLE)]


def test_a_candidate_of_the_decoder_wins_where_it_agrees_best_and_alone_where_texts_may_not_be_repeated():
    near, image = scene(4, 1.0), plane(1)
    own = ["MR of the knee", MIDDLE]
    assert near.choose([own], image) == [(1, own[1])], "the first of equal ones is the decoder's"
    assert near.choose([own[:1]], image) == [(None, own[1])]
    assert near.choose([own[:1]], image, repeats=False) == [(0, own[0])]
    both = scene(4, 0.1).choose([own, own], torch.cat([image, plane(90)]), repeats=False)
    assert [one.candidate for one in both] == [1, 0], "each row has its own near texts"


def test_equal_texts_vote_once():
    once = NearTexts(["a cyst.", "A  cyst", "a mass"], plane(0, 5, 10), Vote(10, 1.0))
    assert once.texts == ["a cyst.", "a mass"]
    places, weights = once.near(plane(0))
    assert places.tolist() == [[0, 1]]
    cosines = np.exp([1.0, math.cos(math.radians(10))])
    np.testing.assert_allclose(weights[0], cosines / cosines.sum(), atol=1e-6)


def test_the_vote_is_chosen_by_the_rows_that_it_suits():
    """Ten odd texts lie nearest to every image, and forty that are alike lie a little farther away."""
    odd = [f"number{n} alone{n} odd{n} strange{n}" for n in range(10)]
    alike = [f"left pleural effusion seen today view{n}" for n in range(40)]
    angles = [*range(0, 100, 10), *(angle + 4 for angle in range(0, 100, 10) for _ in range(4))]
    near = NearTexts([*odd, *alike], plane(*angles), Vote(0, 1.0))
    rows, groups = plane(*range(0, 100, 10)), [str(n) for n in range(10)]
    majority = chosen_vote(near, rows, ["left pleural effusion seen today"] * 10, groups, "pairs")
    assert [one.text in alike for one in near.with_vote(majority).choose([[]] * 10, rows)] == [True] * 10
    assert majority.agreement > 0.1
    nearest = chosen_vote(near, rows, odd, groups, "pairs")
    assert [one.text for one in near.with_vote(nearest).choose([[]] * 10, rows)] == odd
    assert nearest.agreement == pytest.approx(1.0)
    single = chosen_vote(NearTexts(["a mass"], plane(0), Vote(0, 1.0)), plane(3), ["a mass"], ["x"], "pairs")
    assert single.near_texts == COUNTS[0]


def test_every_group_has_the_same_weight_in_the_choice():
    odd, alike = "number alone odd strange", [f"left pleural effusion seen today view{n}" for n in range(9)]
    far = [f"axial{n} CT{n}" for n in range(90)]
    near = NearTexts([odd, *alike, *far], plane(0, *[30 + n for n in range(9)], *[180] * 90), Vote(0, 1.0))
    references, rows = [odd, *["left pleural effusion seen today"] * 20], plane(*[row / 10 for row in range(21)])
    split = chosen_vote(near, rows, references, [str(row) for row in range(21)], "pairs")
    joined = chosen_vote(near, rows, references, ["a", *["b"] * 20], "pairs")
    assert near.with_vote(split).choose([[]], plane(0))[0].text in alike, "twenty groups of 21 want the majority"
    assert near.with_vote(joined).choose([[]], plane(0))[0].text == odd, "one of two wants the odd text, wholly"


def test_turned_rows_lie_at_the_angle_of_neighbours():
    torch.manual_seed(0)
    centre = unit_norm(torch.randn(1, 512))
    texts = unit_norm(centre + 0.03 * torch.randn(50, 512))
    cosines = (turned_as_the_nearest(texts, texts) * texts).sum(dim=1)
    between = (texts @ texts.T - 2 * torch.eye(50)).amax(dim=1).mean()
    assert float(cosines.mean()) == pytest.approx(float(between), abs=0.03)


def test_a_vote_is_read_as_it_was_written(tmp_path):
    assert Vote.read(tmp_path) is None
    Vote(30, 0.1, 0.25, "held-back pairs").write(tmp_path)
    assert Vote.read(tmp_path) == Vote(30, 0.1, 0.25, "held-back pairs")
    for damaged in (
        '{"near_texts": 30}',
        '{"near_texts": -1, "temperature": 1}',
        '{"near_texts": 3, "temperature": 0}',
    ):
        (tmp_path / "near_texts.json").write_text(damaged)
        with pytest.raises(DataRefused, match="is damaged"):
            Vote.read(tmp_path)
    for change in ({"near_texts": -1}, {"near_temperature": 0.0}, {"near_temperature": math.nan}):
        with pytest.raises(UsageError, match="near_texts is at least 0"):
            GenerationSettings(**change)
    with pytest.raises(UsageError, match="mode joint changes it"):
        CaptionSettings(mode="joint", near_texts=True)


def test_batches_hold_rows_of_like_lengths_and_every_row_once():
    lengths = [3 + row % 29 for row in range(101)]
    sampler = LengthBatches(EpochSampler(101, seed=1), lengths, batch_size=8)
    first, again = list(sampler), list(sampler)
    assert first == again
    assert sorted(row for _, row in first) == list(range(101))
    batches = [[lengths[row] for _, row in first[start : start + 8]] for start in range(0, 96, 8)]
    assert max(max(batch) - min(batch) for batch in batches) <= 4
    assert batches != sorted(batches), "the order of batches is drawn"
    sampler.set_epoch(1)
    second = list(sampler)
    assert {epoch for epoch, _ in second} == {1}
    assert [row for _, row in second] != [row for _, row in first]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`data`, `model`, and the text-only run `run`, which chose its vote."""
    home = tmp_path_factory.mktemp("consensus")
    data = write_phantom(home / "data", num_pairs=130, num_validation=40, num_test=20, image_size=16)
    torch.manual_seed(0)
    recipe = Recipe(modalities=tiny_modalities(), embedding_dim=24, vocab_size=400)
    new_model(recipe, data.first_captions).save_pretrained(home / "model")
    training = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "learning_rate": 5e-3}
    training |= {"eval_strategy": "no", "save_strategy": "no"}
    decoder = {"model_type": "bert", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    asked = {"mode": "text", "decoder": decoder, "max_tokens": 16, "training": training, "near_texts": True}
    gapless.train_captioner(home / "model", data=home / "data", out=home / "run", settings=CaptionSettings(**asked))
    return home


def lines_of(place, name, out, settings=BEAM, **options):
    gapless.caption(place / name, data=place / "data", out=out, settings=settings, **options)
    return read_captions(out)


@torch.no_grad()
def test_a_captioner_asks_the_near_texts_that_its_training_chose(place, tmp_path):
    vote = Vote.read(place / "run" / "model")
    assert vote.chosen_on == "held-back pairs"
    assert 0 < vote.agreement < 1
    lines = lines_of(place, "run", tmp_path / "a.jsonl")
    assert json.loads((tmp_path / "a.jsonl.json").read_text())["near_texts"] == {
        "count": vote.near_texts,
        "temperature": vote.temperature,
    }
    model = load_captioner(place / "run")
    test = Manifest.of(place / "data").select("test")
    texts = sorted(set(Manifest.of(place / "data").select("train").first_captions))
    near = NearTexts(texts, model.aligner.encode("text", texts), vote)
    known = TrainTexts.of(texts)
    copies = 0
    for ids, features, _ in feature_batches(model, sources_of(model, test), batch_size=64):
        prefix = model.prefix(*features)
        beams = candidates_from(model, prefix, BEAM, count=3)
        expected = near.choose([[one.text for one in row] for row in beams], features[0])
        for row, id in enumerate(ids):
            line = lines[id]
            assert line["caption"] == expected[row].text
            assert bool(line.get("repeats_training_text")) == known.has(line["caption"])
            score = brute_force(model, prefix[row], line["caption"]) if row < 3 else line["score"]
            assert line["score"] == pytest.approx(score, abs=1e-4)
            copies += expected[row].candidate is None
    assert copies > 0


def test_no_text_is_repeated_where_that_is_not_wanted_and_none_votes_where_it_is_off(place, tmp_path):
    settings = GenerationSettings("beam", num_beams=3, repeat_texts=False)
    lines = lines_of(place, "run", tmp_path / "b.jsonl", settings)
    off = lines_of(place, "run", tmp_path / "c.jsonl", GenerationSettings("beam", num_beams=3, near_texts=0))
    assert "near_texts" not in json.loads((tmp_path / "c.jsonl.json").read_text())
    model = load_captioner(place / "run")
    test = Manifest.of(place / "data").select("test")
    for ids, features, _ in feature_batches(model, sources_of(model, test), batch_size=64):
        prefix = model.prefix(*features)
        beams = candidates_from(model, prefix, settings, count=3)
        best = captions_from(model, prefix, settings)
        assert [row[0] for row in beams] == best
        for row, id in enumerate(ids):
            assert lines[id]["caption"] in [one.text for one in beams[row]]
            assert off[id]["caption"] == best[row].text


def test_image_files_ask_stored_texts_or_are_refused(place, tmp_path):
    image = next((place / "data" / "images").rglob("*.png"))
    with pytest.raises(UsageError, match="--near_texts uses training texts, and this captioner stored none"):
        gapless.caption(place / "run", images=[image], settings=BEAM)
    plain = GenerationSettings("greedy", near_texts=0)
    assert gapless.caption(place / "run", images=[image], settings=plain).captions == 1
    shutil.copytree(place / "run" / "model", tmp_path / "stored")
    texts = Manifest.of(place / "data").select("train").first_captions
    TrainTexts.of(texts, stored=True).write(tmp_path / "stored")
    asked = GenerationSettings("greedy", near_texts=1)
    (line,) = gapless.caption(tmp_path / "stored", images=[image], settings=asked).lines
    assert line["caption"] in texts
    assert line["repeats_training_text"]


def test_without_pairs_the_vote_is_chosen_on_texts_alone(place, tmp_path):
    """The same manifest for a captioner of another source, which no row has."""
    data = Manifest.of(place / "data")
    train, held_back = data.select("train"), data.select("validation")
    model = load_captioner(place / "run")
    by_pairs = learnt_vote(model, train, held_back)
    assert by_pairs == Vote.read(place / "run" / "model")
    model.route = type(model.route)({"history": 1.0}, "text")
    by_texts = learnt_vote(model, train, held_back)
    assert by_texts.chosen_on == "held-back texts"
    with pytest.raises(DataRefused, match="rows that are held back, and there are none"):
        learnt_vote(model, train, Manifest(data.path, data.info, data.table.slice(0, 0)))
