"""Several captions per image: lenient recall as benchmarks count it, against one row per image and plain loops."""

import numpy as np
import pytest

from gapless.metrics.measure import measure, measure_difference

ITEMS, EACH = 12, 4
DIRECTIONS = ("image_to_text", "text_to_image")


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def captioned(noise, seed=0):
    """(pictures one per item, image rows, text rows, item of each row)."""
    random = np.random.default_rng(seed)
    pictures = unit(random.normal(size=(ITEMS, 8)))
    item = np.repeat(np.arange(ITEMS), EACH)[random.permutation(ITEMS * EACH)]
    return pictures, pictures[item], unit(pictures[item] + noise * random.normal(size=(len(item), 8))), item


def protocol(pictures, text, item, k):
    """Recall of any caption of an image, and of the one image of a caption, among the first k."""
    scores = pictures @ text.T
    forth = [any(item[row] == number for row in np.argsort(-scores[number])[:k]) for number in range(ITEMS)]
    back = [item[row] in np.argsort(-scores[:, row])[:k] for row in range(len(item))]
    return {"image_to_text": np.mean(forth), "text_to_image": np.mean(back)}


@pytest.mark.parametrize("noise", [0.05, 0.6, 2.0])
def test_recall_is_that_of_one_row_per_image(noise):
    pictures, image, text, item = captioned(noise)
    found = measure({"image": image, "text": text}, positives=[f"image {n}" for n in item], include=("retrieval",))
    for k in (1, 5, 10):
        wanted = protocol(pictures, text, item, k)
        for direction in DIRECTIONS:
            assert found[f"retrieval/{direction}/lenient_R@{k}"] == pytest.approx(wanted[direction])


def test_without_positives_a_perfect_model_is_capped():
    _, image, text, item = captioned(0.0)
    strict = measure({"image": image, "text": text}, include=("retrieval",))
    assert strict["retrieval/mean/R@1"] == pytest.approx(1 / EACH)
    assert "retrieval/mean/lenient_R@1" not in strict
    told = measure({"image": image, "text": text}, positives=item, include=("retrieval",))
    assert told["retrieval/mean/lenient_R@1"] == 1
    assert told["retrieval/mean/R@1"] == strict["retrieval/mean/R@1"]  # the strict figure stays what it is


def test_copies_inside_an_item_count_once():
    """Five copies of the nearest wrong image fill one place of the first five, not all."""
    pictures = np.eye(6)
    item = np.repeat(np.arange(6), 5)
    text = unit(pictures[item] + 1.5 * pictures[(item + 1) % 6])  # the own image is the second nearest
    found = measure({"image": pictures[item], "text": text}, positives=item, include=("retrieval",))
    assert found["retrieval/text_to_image/lenient_R@1"] == 0
    assert found["retrieval/text_to_image/lenient_R@5"] == 1
    alone = measure({"image": pictures[item], "text": text}, captions=list(map(str, item)), include=("retrieval",))
    assert alone["retrieval/text_to_image/lenient_R@5"] == 0  # the control: by captions every copy takes a place


def test_uneven_items_weigh_each_image_once():
    pictures = np.eye(3)
    item = np.array([0, 0, 0, 0, 1, 2])
    text = np.eye(3)[[0, 0, 0, 0, 2, 1]]  # two of three images find a wrong caption, two of six captions a wrong image
    found = measure({"image": pictures[item], "text": text + 1e-3 * pictures[item]}, positives=item, num_bootstrap=20)
    assert found["retrieval/image_to_text/lenient_R@1"]["value"] == pytest.approx(1 / 3)
    assert found["retrieval/text_to_image/lenient_R@1"]["value"] == pytest.approx(1 / 3)  # equal captions count once


def test_a_row_without_a_name_is_an_item_of_its_own():
    _, image, text, item = captioned(0.0)
    names = [None if n == 0 else str(n) for n in item]
    found = measure({"image": image, "text": text}, positives=names, include=("retrieval",))
    # the unnamed rows ask on their own, and each finds one of EACH equal captions
    assert found["retrieval/image_to_text/lenient_R@1"] == pytest.approx((ITEMS - 1 + 1) / (ITEMS - 1 + EACH))


def test_a_difference_of_two_methods_takes_them_too():
    _, image, text, item = captioned(0.6)
    worse = {"image": image, "text": captioned(2.0)[2]}
    found = measure_difference([{"image": image, "text": text}], [worse], positives=item, num_bootstrap=20)
    assert found["retrieval/mean/lenient_R@1"]["value"] > 0
