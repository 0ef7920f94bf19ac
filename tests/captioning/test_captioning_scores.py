"""Caption scores: cases worked by hand, the reference package's own numbers, and a bootstrap that resamples groups."""

import contextlib
import io
import math
import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed")

from gapless.captioning import metrics as captioning
from gapless.captioning.metrics import CaptionScorer, most_typical
from gapless.core.errors import DataRefused
from gapless.metrics.uncertainty import bootstrap

needs_java = pytest.mark.skipif(captioning.java() is None, reason="there is no Java")

REFERENCES = [
    ["chest radiograph, left pleural effusion", "an effusion on the left."],
    ["axial CT of the abdomen without a lesion"],
    ["MR of the brain; right frontal mass", "frontal mass", "a mass in the right frontal lobe of the brain"],
    ["ultrasound of the liver with a small cyst"],
    ["chest radiograph after removal of the drain"],
    ["Röntgenaufnahme: don't use 5 µm “slices” of the knee"],
]
CAPTIONS = [
    "chest radiograph with left effusion",
    "axial CT of the abdomen",
    "MR of the brain, left frontal mass",
    "",
    "chest radiograph after removal of the drain",
    "don't use slices of the knee - 5 µm",
]
DRAW = torch.tensor([[2.0, 0.0, 1.0]], dtype=torch.float64)  # of three groups of two rows
DRAWN = [0, 1, 0, 1, 4, 5]


def values(captions, references, groups=None, use_java=False, **options):
    with CaptionScorer(references, groups, use_java=use_java) as scorer:
        return {key: figure.value for key, figure in scorer.figures(captions, **options).items()}


def test_bleu_by_hand():
    """the the cat / the cat sat on: clipped 2 of 3 words, 1 of 2 pairs, 3 words against 4."""
    found = values(["the the cat"], [["the cat sat on"]])
    brevity = math.exp(1 - 4 / 3)
    assert found["caption/BLEU-1"] == pytest.approx(brevity * 2 / 3, rel=1e-6)
    assert found["caption/BLEU-2"] == pytest.approx(brevity * math.sqrt(2 / 3 * 1 / 2), rel=1e-6)
    assert found["caption/BLEU-3"] < 1e-4
    # of several references the closest in length counts, and each n-gram as often as in the reference that has most
    assert values(["a b c"], [["a b c d e f g", "a x y"]])["caption/BLEU-1"] == pytest.approx(1.0)


def test_bleu_is_of_the_corpus_not_a_mean_of_rows():
    found = values(["a b", "c d e f"], [["a b"], ["x y z w"]])
    assert found["caption/BLEU-1"] == pytest.approx(2 / 6)


def test_rouge_by_hand():
    """Longest common subsequence 2 (a c) of 3 and 4 words, beta 1.2; over references precision and recall are best."""
    precision, recall = 2 / 3, 2 / 4
    expected = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert values(["a b c"], [["a x c y"]])["caption/ROUGE-L"] == pytest.approx(expected)
    assert values(["a b c"], [["x y", "a b c"]])["caption/ROUGE-L"] == pytest.approx(1.0)


def test_cider_by_hand():
    """Two rows of one word each, no word shared: idf log 2, cosine 1 for n = 1 and 0 for 2 to 4: 10 / 4 a row."""
    assert values(["cat", "dog"], [["cat"], ["dog"]])["caption/CIDEr"] == pytest.approx(2.5)
    # a word that every row's references hold says nothing
    assert values(["the", "the"], [["the"], ["the"]])["caption/CIDEr"] == 0.0
    # term frequency is clipped, and 2 words too many cost exp(-delta^2 / (2 * 36)); the reference counts pairs
    found = values(["cat cat cat", "dog"], [["cat"], ["dog"]])["caption/CIDEr"]
    clipped = 1 * math.log(2) * math.log(2) / (3 * math.log(2) * math.log(2))
    assert found == pytest.approx((10 * clipped * math.exp(-4 / 72) / 4 + 2.5) / 2)


def test_diversity_by_hand():
    found = values(["a b a", "a b a", "c"], [["x"], ["y"], ["z"]])
    assert found["caption/distinct-1"] == pytest.approx(3 / 7)
    assert found["caption/distinct-2"] == pytest.approx(2 / 4)
    assert found["caption/unique"] == pytest.approx(2 / 3)
    assert found["caption/length"] == pytest.approx(7 / 3)
    assert found["caption/empty"] == 0.0
    assert values(["", "a"], [["x"], ["y"]])["caption/empty"] == 0.5


def test_a_caption_finds_its_image_and_a_collapsed_one_scores_chance():
    axes = torch.eye(8)
    found = values(["a"] * 8, [["a"]] * 8, embeddings={"caption": axes, "image": axes})
    assert found["caption/retrieval/R@1"] == 1.0
    same = axes[0].expand(8, 8)
    found = values(["a"] * 8, [["a"]] * 8, embeddings={"caption": same, "image": same})
    assert found["caption/retrieval/R@1"] == pytest.approx(1 / 8)
    # only the caption is a query: the image that is nearest to nothing does not matter
    shifted = axes.roll(1, 0)
    assert values(["a"] * 8, [["a"]] * 8, embeddings={"caption": axes, "image": shifted})["caption/retrieval/R@1"] == 0


def reference_numbers(captions, references):
    """What pycocoevalcap gives when it is used as its own example does."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        tokenizer = PTBTokenizer()
        truth = tokenizer.tokenize({i: [{"caption": text} for text in texts] for i, texts in enumerate(references)})
        given = tokenizer.tokenize({i: [{"caption": text}] for i, text in enumerate(captions)})
        meteor = Meteor()
        scores = {f"caption/BLEU-{n}": s for n, s in enumerate(Bleu(4).compute_score(truth, given)[0], start=1)}
        scores["caption/METEOR"] = meteor.compute_score(truth, given)[0]
        some = ({i: texts[row] for i, row in enumerate(DRAWN)} for texts in (truth, given))
        drawn_meteor = meteor.compute_score(*some)[0]
        for stream in (meteor.meteor_p.stdout, meteor.meteor_p.stderr):
            stream.close()
        scores["caption/ROUGE-L"] = Rouge().compute_score(truth, given)[0]
        scores["caption/CIDEr"] = Cider().compute_score(truth, given)[0]
    return scores, truth, given, drawn_meteor


@pytest.mark.ci
@needs_java
@pytest.mark.filterwarnings("ignore:unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_reference_packages_own_numbers():
    expected, truth, given, drawn_meteor = reference_numbers(CAPTIONS, REFERENCES)
    groups = ["a", "a", "b", "b", "c", "c"]
    with CaptionScorer(REFERENCES, groups) as scorer:
        assert scorer.tokenizer == "ptb"
        assert scorer.missing == {}
        assert scorer.references == list(truth.values())
        assert scorer.tokenise(CAPTIONS) == [texts[0] for texts in given.values()]
        figures = scorer.figures(CAPTIONS)
        assert {key: figures[key].value for key in expected} == pytest.approx(expected, rel=1e-12)
        check_replicates(scorer, figures)
        assert float(figures["caption/METEOR"].replicates(DRAW)) == pytest.approx(drawn_meteor, rel=1e-12)


def check_replicates(scorer, figures):
    """A draw of groups gives what scoring the drawn rows gives; each group twice changes no ratio."""
    twice = torch.full((1, 3), 2.0, dtype=torch.float64)
    for key, figure in figures.items():
        if figure.replicates is not None:
            assert float(figure.replicates(twice)) == pytest.approx(figure.value, rel=1e-6), key
    with CaptionScorer([REFERENCES[row] for row in DRAWN], use_java=False) as other:
        other.references = [scorer.references[row] for row in DRAWN]
        tokens = [scorer.tokenise(CAPTIONS)[row] for row in DRAWN]
        again = other._bleu(tokens) | {"caption/ROUGE-L": other._rouge(tokens), "caption/CIDEr": other._cider(tokens)}
    for n in range(1, 5):
        expected = again[f"caption/BLEU-{n}"].value
        assert float(figures[f"caption/BLEU-{n}"].replicates(DRAW)) == pytest.approx(expected, rel=1e-9)
    assert float(figures["caption/ROUGE-L"].replicates(DRAW)) == pytest.approx(float(again["caption/ROUGE-L"].mean()))
    # CIDEr keeps the document frequencies of all references: that of the drawn rows alone is another number
    cider = float(figures["caption/CIDEr"].replicates(DRAW))
    assert cider != pytest.approx(float(again["caption/CIDEr"].mean()), rel=1e-3)
    assert cider == pytest.approx(float(scorer._cider(scorer.tokenise(CAPTIONS))[DRAWN].mean()))


def test_without_java_the_scores_say_so(monkeypatch):
    monkeypatch.setattr(captioning, "java", lambda: None)
    with CaptionScorer(REFERENCES, ["a", "a", "b", "b", "c", "c"]) as scorer:
        assert scorer.tokenizer == "words"
        assert "Java" in scorer.missing["caption/METEOR"]
        figures = scorer.figures(CAPTIONS)
        assert "caption/METEOR" not in figures
        check_replicates(scorer, figures)
        intervals = bootstrap(figures, scorer.groups.num_groups, 200)
    assert intervals["caption/BLEU-1"]["low"] < intervals["caption/BLEU-1"]["high"]
    assert "caption/distinct-1" not in intervals


def test_a_copy_of_the_reference_is_perfect_and_line_separators_stay_inside_a_caption():
    texts = [texts[0] for texts in REFERENCES]
    broken = [text.replace(" ", "\u2028", 1).replace(" ", "\r\n", 1) for text in texts]
    found = values(broken, [[text] for text in texts])
    assert found["caption/BLEU-4"] == pytest.approx(1.0)
    assert found["caption/ROUGE-L"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("references", "said"),
    [([["a"], []], "1 of 2 rows"), ([["a", " ... "], ["b"]], "row 0"), ([], "no references")],
)
def test_empty_references_are_refused_and_counted(references, said):
    with pytest.raises(DataRefused, match=said):
        CaptionScorer(references, use_java=False)


def test_another_number_of_captions_is_refused():
    with pytest.raises(ValueError, match="expected 6 captions"):
        values(CAPTIONS[:5], REFERENCES)


def test_the_most_typical_caption_shares_most_words():
    captions = ["chest radiograph with effusion", "chest radiograph", "knee", "chest radiograph of a child", "knee MR"]
    assert most_typical(captions) == "chest radiograph"
    with pytest.raises(DataRefused, match="no word"):
        most_typical(["...", "!"])


def test_intervals_resample_groups_not_rows():
    """Ten copies of a row in one group are one observation: the interval of a group is as wide as that of one row."""
    rows, references = ["a b c", "x y z"], [["a b c"], ["q r s"]]
    many = [row for row in rows for _ in range(10)]
    groups = [str(row) for row in range(2) for _ in range(10)]
    with CaptionScorer(references, use_java=False) as scorer:
        one = bootstrap(scorer.figures(rows), 2, 400)
    with CaptionScorer([texts for texts in references for _ in range(10)], groups, use_java=False) as scorer:
        grouped = bootstrap(scorer.figures(many), scorer.groups.num_groups, 400)
    with CaptionScorer([texts for texts in references for _ in range(10)], use_java=False) as scorer:
        naive = bootstrap(scorer.figures(many), scorer.groups.num_groups, 400)

    def width(found):
        return np.subtract(found["caption/ROUGE-L"]["high"], found["caption/ROUGE-L"]["low"])

    assert width(grouped) == width(one)
    assert width(naive) < 0.6 * width(one), "the control: rows as their own groups look surer than they are"
