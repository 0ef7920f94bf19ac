"""The loss, lenient recall, the audit and `close` mean one thing by "the same caption"."""

from itertools import combinations

import numpy as np
from fakes import write_images

from gapless import measure
from gapless.auditing.audit import audit
from gapless.closing.close import positives_of
from gapless.core import captions as same_caption
from gapless.core.captions import caption_codes, normalised_caption
from gapless.inference.embed import Collator
from gapless.manifest.build import build_manifest
from gapless.manifest.options import BuildOptions
from gapless.manifest.raw_rows import BytesSource, RawRow

# Captions of one line are the same; those of different lines are not.
SPELLINGS = [
    ["MRI brain, T2-weighted.", "mri Brain, t2-weighted", "MRI brain,\n T2-weighted .", "MRI brain, T2\u2010weighted"],
    [
        "MRI brain, T2\u2013weighted, left",
        "MRI\u00a0brain, T2\u2212weighted, left..",
        "MRI brain, T2-wei\u00adghted, left",
    ],
    ["MRI brain T2-weighted"],
    ["MRI brain, T2 weighted"],
    ["MRI brain, T1-weighted."],
    ["No mass"],
    ["mass"],
    ["M\u00fcller's sign", "Mu\u0308ller's sign.", "MU\u0308LLER'S SIGN", "Mu\u200d\u0308ller's\u2003sign"],
    ["Muller's sign"],
    ["\ufb01brous Stra\u00dfe", "fibrous STRASSE", "\uff46ibrous stra\u200bsse\u3002"],
    ["5 cm\u00b2 lesion", "5 cm2 lesion"],
    ["\u0456", "\u0406."],  # Cyrillic: looks like the Latin letter, and is another
    ["i", "I"],
]
ALL = [(line, text) for line, texts in enumerate(SPELLINGS) for text in texts]
LINES, TEXTS = [line for line, _ in ALL], [text for _, text in ALL]
NOTHING = ["", " \n", ".", "\u200b", "N/A", None, float("nan")]


def as_one(codes):
    return [one == other for one, other in combinations(list(codes), 2)]


def by_the_loss(texts):
    batch = Collator({}, mask_duplicates=True)([{"id": str(row), "caption": text} for row, text in enumerate(texts)])
    return batch["positives"].tolist()


def by_lenient_recall(first, second):
    rows = np.eye(2, 4)  # every image is nearest to the text of the other row
    figures = measure({"image": rows, "text": rows[::-1].copy()}, captions=[first, second], include=("retrieval",))
    return figures["retrieval/image_to_text/lenient_R@1"] == 1


def by_the_audit(folder, texts):
    """How many sets of repeated captions the audit finds, and the captions in them."""
    images = write_images(folder / "images", len(texts))
    rows = [
        RawRow(str(row), f"r{row}", BytesSource(path.read_bytes(), str(row)), f"image {row}", [text], group=f"g{row}")
        for row, (path, text) in enumerate(zip(images, texts, strict=True))
    ]
    build_manifest(rows, folder / "manifest", BuildOptions(source="drawn", max_bad=0.0))
    found = audit(folder / "manifest", near_duplicates=False).captions["duplicates"]
    return found["sets"], round(found["share"] * len(texts))


def test_every_spelling_is_as_its_line_says():
    assert as_one(caption_codes(TEXTS)) == as_one(LINES)


def test_the_rule_does_not_depend_on_what_else_is_in_the_list():
    for (line, one), (other_line, other) in combinations(ALL, 2):
        assert (len(set(caption_codes([one, other]))) == 1) == (line == other_line), (one, other)


def test_the_loss_and_close_number_captions_by_that_rule():
    assert as_one(by_the_loss(TEXTS)) == as_one(LINES)
    assert as_one(positives_of(TEXTS)) == as_one(LINES)


def test_lenient_recall_follows_the_rule():
    for (line, one), (other_line, other) in combinations(ALL[::2], 2):
        assert by_lenient_recall(one, other) == (line == other_line), (one, other)


def test_the_audit_follows_the_rule(tmp_path):
    repeated = [texts for texts in SPELLINGS if len(texts) > 1]
    assert by_the_audit(tmp_path, TEXTS) == (len(repeated), sum(map(len, repeated)))


def test_captions_that_say_nothing_equal_no_other(tmp_path):
    assert [normalised_caption(text) for text in NOTHING] == [""] * len(NOTHING)
    assert len(set(caption_codes([*NOTHING, *NOTHING]))) == 2 * len(NOTHING)
    assert len(set(by_the_loss(["", "", "."]))) == 3
    assert not by_lenient_recall("", "")
    assert by_the_audit(tmp_path, [".", ".", "cyst", "Cyst"]) == (1, 2)


def test_one_rule_turned_off_is_off_in_every_place(monkeypatch, tmp_path):
    """The places call the function: none keeps a copy of it."""
    monkeypatch.setattr(same_caption, "_one_form", lambda text: text)
    pair = ["T2-weighted", "T2\u2010weighted"]
    assert len(set(by_the_loss(pair))) == 2
    assert len(set(positives_of(pair))) == 2
    assert not by_lenient_recall(*pair)
    assert by_the_audit(tmp_path, pair) == (0, 0)
