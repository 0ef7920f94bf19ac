"""Captions that near training texts vote on: agreement as CIDEr and METEOR, the choice by hand, and a run with it."""

import json
import math
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from fakes import CAPTIONS, tiny_modalities
from test_captioning_captioner import brute_force

import gapless
from gapless.captioning import CaptionSettings, GenerationSettings, load_captioner
from gapless.captioning.caption_files import read_captions
from gapless.captioning.consensus import (
    COUNTS,
    TEMPERATURES,
    WORD_WEIGHTS,
    NearTexts,
    TextVectorizer,
    agreement,
    chosen_vote,
    ngram_agreement,
    word_agreement,
)
from gapless.captioning.data import LengthBatches, feature_batches, sources_of
from gapless.captioning.generation import candidates_from, captions_from
from gapless.captioning.metrics import word_tokens
from gapless.captioning.train_texts import TrainTexts
from gapless.captioning.vote import TEMPERATURE, WORD_WEIGHT, Vote
from gapless.captioning.voting import learnt_vote, near_texts_of, turned_as_the_nearest
from gapless.core.errors import DataRefused, UsageError
from gapless.core.geometry import unit_norm
from gapless.inference.pairs import EpochSampler
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.training.recipes import Recipe
from gapless.training.run import new_model

BEAM = GenerationSettings("beam", num_beams=3)
OTHERS = ["chest radiograph with a drain", "words that nobody wrote", "", CAPTIONS[2], "MR of the liver"]


def test_agreement_by_ngrams_is_a_tenth_of_cider_with_the_frequencies_of_the_texts():
    scorers = pytest.importorskip("pycocoevalcap.cider.cider_scorer")
    vectorizer = TextVectorizer(CAPTIONS)
    found = ngram_agreement(vectorizer.vectors(OTHERS), vectorizer.vectors(CAPTIONS))
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
    vectorizer = TextVectorizer(["cyst", "Cyst."])
    assert ngram_agreement(vectorizer.vectors(["cyst", ""]), vectorizer.vectors(["cyst"])).tolist() == [[0.0], [0.0]]
    wordless = TextVectorizer(["...", "?"])
    for by in (ngram_agreement, word_agreement):
        assert by(wordless.vectors(["a", ""]), wordless.vectors(["...", "?"])).tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("left effusion", "Left effusion.", 1.0),
        ("left effusion", "a small left effusion", 2 / (0.9 * 4 + 0.1 * 2)),  # half of the recall is missing
        ("a small left effusion", "left effusion", 2 / (0.9 * 2 + 0.1 * 4)),  # half of the precision
        ("the the the", "the mass", 1 / (0.9 * 2 + 0.1 * 3)),  # a word is shared as often as both have it
        ("the the the", "the left and the right", 2 / (0.9 * 5 + 0.1 * 3)),
        ("a drain", "a mass", 1 / (0.9 * 2 + 0.1 * 2)),  # "drain" stands in no training text
        ("", "a mass", 0.0),
    ],
)
def test_agreement_by_words_weighs_recall_nine_times(text, other, expected):
    vectorizer = TextVectorizer(["a small left effusion", "the left and the right", "the mass"])
    texts, others = vectorizer.vectors([text]), vectorizer.vectors([other])
    assert word_agreement(texts, others).item() == pytest.approx(expected)
    by_ngrams = ngram_agreement(texts, others).item()
    for weight in (0.0, 0.25, 1.0):
        mean = (1 - weight) * by_ngrams + weight * expected
        assert agreement(texts, others, weight).item() == pytest.approx(mean)


def test_agreement_by_words_is_the_f_measure_of_counted_words():
    vectorizer = TextVectorizer(CAPTIONS)
    found = word_agreement(vectorizer.vectors(OTHERS), vectorizer.vectors(CAPTIONS))
    for row, text in enumerate(OTHERS):
        for column, other in enumerate(CAPTIONS):
            words, wanted = Counter(word_tokens(text).split()), Counter(word_tokens(other).split())
            shared = sum((words & wanted).values())
            precision, recall = shared / max(words.total(), 1), shared / wanted.total()
            expected = precision * recall / (0.9 * precision + 0.1 * recall) if shared else 0.0
            assert found[row, column] == pytest.approx(expected)


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


def test_the_vote_is_the_best_of_all_settings_by_both_agreements():
    """Every setting is tried one after the other; words count the more, the more the references say."""
    words = ["left", "right", "small", "large", "pleural", "effusion", "mass", "drain", "seen", "today"]
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(words, size=3 + n % 9)) for n in range(40)]
    near = NearTexts(texts, unit_norm(torch.from_numpy(draw.normal(size=(40, 3))).float()), Vote(0, 1.0))
    rows = unit_norm(torch.from_numpy(draw.normal(size=(12, 3))).float())
    references = [" ".join(draw.choice(words, size=8)) for _ in range(12)]
    groups = [str(row // 5) for row in range(12)]
    truth = near.vectorizer.vectors(references)

    def reached(count, temperature, weight):
        chosen = near.with_vote(Vote(count, temperature, word_weight=weight)).choose([[]] * 12, rows)
        vectors = near.vectorizer.vectors([one.text for one in chosen])
        values = [ngram_agreement(vectors, truth).diagonal(), word_agreement(vectors, truth).diagonal()]
        means = [[of_kind[[g == group for g in groups]].mean() for group in set(groups)] for of_kind in values]
        return math.sqrt(np.mean(means[0]) * np.mean(means[1]))

    settings = [(n, t, w) for n in COUNTS if n <= 40 for t in TEMPERATURES for w in WORD_WEIGHTS]
    by_hand = {setting: reached(*setting) for setting in settings}
    vote = chosen_vote(near, rows, references, groups, "pairs")
    assert vote.agreement == pytest.approx(max(by_hand.values()), abs=1e-6)
    assert by_hand[vote.near_texts, vote.temperature, vote.word_weight] == pytest.approx(vote.agreement, abs=1e-6)
    assert vote.word_weight > 0


def test_the_word_weight_decides_between_the_middle_and_a_fuller_text():
    """By words the middle one has 5 / 5.9 of both longer ones, 1 of itself; a longer one 5 / 5.1, 5 / 6 and 1."""
    near, image = scene(4, 10.0), plane(1)
    assert near.choose([[]], image)[0].text == MIDDLE
    assert near.with_vote(Vote(4, 10.0, word_weight=1.0)).choose([[]], image)[0].text == SCENE[1]


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
    Vote(30, 0.1, 0.25, "held-back pairs", 0.05).write(tmp_path)
    assert Vote.read(tmp_path) == Vote(30, 0.1, 0.25, "held-back pairs", 0.05)
    older = '{"near_texts": 30, "temperature": 0.1, "agreement": 0.25, "chosen_on": "held-back pairs"}'
    (tmp_path / "near_texts.json").write_text(older)
    assert Vote.read(tmp_path) == Vote(30, 0.1, 0.25, "held-back pairs", word_weight=0.0)
    for damaged in (
        '{"near_texts": 30, "temperature": 0.1, "word_weight": 2}',
        '{"near_texts": 30, "temperature": 0.1, "word_weight": NaN}',
        '{"near_texts": 30, "temperature": 0.1, "word_weight": null}',
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
    with pytest.raises(UsageError, match=r"word_weight is from 0 to 1, got 1\.5"):
        Vote(30, 0.1, word_weight=1.5)
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
        "word_weight": vote.word_weight,
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


def test_a_vote_by_hand_keeps_the_word_weight_of_training_or_takes_the_usual_one(place):
    model, data = load_captioner(place / "run"), Manifest.of(place / "data")
    by_hand = GenerationSettings(near_texts=7, near_temperature=0.3)
    model.vote = Vote(30, 0.1, word_weight=0.5)
    assert near_texts_of(model, by_hand, data).vote == Vote(7, 0.3, word_weight=0.5)
    model.vote = None
    assert near_texts_of(model, GenerationSettings(near_texts=7), data).vote == Vote(
        7, TEMPERATURE, None, "", WORD_WEIGHT
    )
    assert near_texts_of(model, GenerationSettings(), data) is None


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
