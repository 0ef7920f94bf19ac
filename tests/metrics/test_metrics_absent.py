"""Rows that lack modalities: each pair of modalities gives what `measure` gives on that pair's rows alone."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from gapless.core.errors import DataRefused, UsageError
from gapless.metrics.catalogue import entry_of
from gapless.metrics.measure import measure, measure_difference, measure_under_draws

NAMES = ("image", "text", "ecg")
NUM_ROWS = 70
OF_ALL = ("gap/centroid_uniformity", "gap/wasserstein_uniformity")


def rows_of(seed=0, num_rows=NUM_ROWS, dim=8):
    random = np.random.default_rng(seed)
    hidden = random.standard_normal((num_rows, 4))
    return {
        name: (hidden @ random.standard_normal((4, dim)) + random.standard_normal((num_rows, dim)) + number).astype(
            np.float32
        )
        for number, name in enumerate(NAMES)
    }


def masks_of(seed=0, share=0.4, num_rows=NUM_ROWS):
    random = np.random.default_rng(100 + seed)
    return {name: random.random(num_rows) > share for name in NAMES}


def columns_of(seed=0, num_rows=NUM_ROWS):
    random = np.random.default_rng(200 + seed)
    return {
        "groups": [f"p{number}" for number in random.integers(0, 20, num_rows)],
        "captions": [f"c{number}" for number in random.integers(0, 50, num_rows)],
        "labels": [f"l{number}" for number in random.integers(0, 3, num_rows)],
    }


def part_of(rows, columns, chosen, names=NAMES):
    return {name: rows[name][chosen] for name in names}, {
        key: [value for value, has in zip(values, chosen, strict=True) if has] for key, values in columns.items()
    }


def number(figure):
    return figure["value"] if isinstance(figure, dict) and "value" in figure else figure


def same(found, expected):
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    return found == expected or (math.isnan(found) and math.isnan(expected))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("by", ["captions", "positives"])
def test_each_pair_is_that_of_its_rows_alone(seed, by):
    """The reference knows no masks: it is given the rows of one pair."""
    rows, masks, columns = rows_of(seed), masks_of(seed), columns_of(seed)
    if by == "positives":
        columns["positives"] = columns.pop("captions")
    found = measure(rows, **columns, present=masks)
    seen = set()
    for first, second in combinations(NAMES, 2):
        pair = f"{first}-{second}"
        alone, own = part_of(rows, columns, masks[first] & masks[second], (first, second))
        own.pop("labels")
        expected = measure(alone, **own)
        assert found["pairs"][pair] == {"n": expected["n"], "gallery_size": expected["n"]}
        for key, value in expected.items():
            if key in OF_ALL or key.startswith(("retrieval/mean/", "mixed/modality_bias/")) or "/" not in key:
                continue
            own_key = key if key.startswith("retrieval/") else f"{key}/{pair}"
            assert same(found[own_key], value), own_key
            seen.add(own_key)
    assert len(seen) > 100
    directions = {key.split("/")[1] for key in found if key.startswith("retrieval/") and "@complete" not in key}
    assert len(directions - {"mean"}) == 6


@pytest.mark.parametrize("seed", range(3))
def test_the_bare_key_is_the_mean_over_pairs_of_equal_weight(seed):
    found = measure(rows_of(seed), present=masks_of(seed), include=("gap", "retrieval", "mixed", "further"))
    pairs = [f"{a}-{b}" for a, b in combinations(NAMES, 2)]
    assert len({found["pairs"][pair]["n"] for pair in pairs}) > 1, "the pairs must differ in their rows"
    for key in ("gap/centroid_distance", "gap/margin", "mixed/R@10", "gap/hubness"):
        assert found[key] == pytest.approx(np.mean([found[f"{key}/{pair}"] for pair in pairs]), abs=1e-12)
    with_image = [found[f"gap/within_cosine/image/image-{other}"] for other in ("text", "ecg")]
    assert found["gap/within_cosine/image"] == pytest.approx(np.mean(with_image), abs=1e-12)
    recalls = [found[f"retrieval/{a}_to_{b}/R@5"] for a in NAMES for b in NAMES if a != b]
    assert found["retrieval/mean/R@5"] == pytest.approx(np.mean(recalls), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_complete_keys_are_those_of_the_complete_rows(seed):
    rows, masks, columns = rows_of(seed), masks_of(seed), columns_of(seed)
    found = measure(rows, **columns, present=masks)
    chosen = np.logical_and.reduce(list(masks.values()))
    alone, own = part_of(rows, columns, chosen)
    expected = measure(alone, **own)
    assert found["complete"] == {"n": expected.pop("n"), "gallery_size": expected.pop("gallery_size")}
    of_complete = {key.removesuffix("@complete"): v for key, v in found.items() if key.endswith("@complete")}
    assert of_complete.keys() == expected.keys()
    for key, value in expected.items():
        assert same(of_complete[key], value), key


def test_figures_of_all_modalities_by_hand():
    """Centroids of what each row has; all present rows stacked for the Wasserstein uniformity."""
    rows, masks = rows_of(), masks_of(5)
    kept = np.sum(list(masks.values()), axis=0) >= 2
    found = measure(rows, present=masks, include=("gap",))
    assert found["n"] == kept.sum() < NUM_ROWS
    unit = {name: matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for name, matrix in rows.items()}
    centroids = []
    for row in np.flatnonzero(kept):
        total = sum(unit[name][row].astype(np.float64) for name in NAMES if masks[name][row])
        centroids.append(total / np.linalg.norm(total))
    count = range(len(centroids))
    kernel = [math.exp(-2 * np.sum((centroids[i] - centroids[j]) ** 2)) for i in count for j in count if i != j]
    assert found["gap/centroid_uniformity"] == pytest.approx(math.log(np.mean(kernel)), abs=1e-5)
    stacked = np.concatenate([unit[name][masks[name] & kept] for name in NAMES]).astype(np.float64)
    mean, dim = stacked.mean(axis=0), stacked.shape[1]
    spectrum = np.clip(np.linalg.eigvalsh(np.cov(stacked.T, bias=True)), 0, None)
    squared = mean @ mean + 1 + spectrum.sum() - 2 / math.sqrt(dim) * np.sqrt(spectrum).sum()
    assert found["gap/wasserstein_uniformity"] == pytest.approx(-math.sqrt(squared), abs=1e-5)


@pytest.mark.parametrize("fill", [np.nan, np.inf, 0.0, 1e30])
def test_what_an_absent_row_holds_changes_nothing(fill):
    rows, masks, columns = rows_of(), masks_of(), columns_of()
    expected = measure(rows, **columns, present=masks, joint=["image+ecg->text"])
    holed = {name: matrix.copy() for name, matrix in rows.items()}
    for name, mask in masks.items():
        holed[name][~mask] = fill
    found = measure(holed, **columns, present=masks, joint=["image+ecg->text"])
    assert found.keys() == expected.keys()
    assert all(same(found[key], value) for key, value in expected.items() if "/" in key)
    if fill != 1e30:  # the control: the same rows without a mask are refused
        with pytest.raises(DataRefused):
            measure(holed, **columns)


def test_the_order_of_the_rows_does_not_matter():
    rows, masks, columns = rows_of(), masks_of(), columns_of()
    order = np.random.default_rng(1).permutation(NUM_ROWS)
    include = ("gap", "retrieval", "mixed", "further")
    expected = measure(rows, groups=columns["groups"], present=masks, include=include, joint=["image+text->ecg"])
    found = measure(
        {name: matrix[order] for name, matrix in rows.items()},
        groups=[columns["groups"][row] for row in order],
        present={name: mask[order] for name, mask in masks.items()},
        include=include,
        joint=["image+text->ecg"],
    )
    for key, value in expected.items():
        if "/" in key:
            assert found[key] == pytest.approx(value, abs=1e-5, nan_ok=True), key


@pytest.mark.parametrize("num_modalities", [2, 3])
def test_nothing_missing_is_the_same_to_the_bit(num_modalities):
    rows = {name: rows_of()[name] for name in NAMES[:num_modalities]}
    columns = columns_of()
    expected = measure(rows, **columns, num_bootstrap=20)
    everything = {name: np.ones(NUM_ROWS, dtype=bool) for name in rows}
    for present in ({}, everything, {"image": torch.ones(NUM_ROWS, dtype=torch.bool)}):
        found = measure(rows, **columns, num_bootstrap=20, present=present)
        assert found.keys() == expected.keys()
        assert all(same(found[key], expected[key]) for key in expected)
    assert not any("@complete" in key for key in expected)


def test_two_modalities_are_measured_on_their_common_rows_intervals_included():
    rows, masks, columns = rows_of(), masks_of(), columns_of()
    chosen = masks["image"] & masks["text"]
    alone, own = part_of(rows, columns, chosen, ("image", "text"))
    expected = measure(alone, **own, num_bootstrap=30)
    two = {name: rows[name] for name in ("image", "text")}
    found = measure(two, **columns, num_bootstrap=30, present={name: masks[name] for name in two})
    assert found.pop("pairs") == {"image-text": {"n": chosen.sum(), "gallery_size": chosen.sum()}}
    assert found.pop("present") == {name: masks[name].sum() for name in two}
    assert found.keys() == expected.keys()
    assert all(same(found[key], expected[key]) for key in expected)


def test_pairs_are_resampled_by_the_same_draws_of_groups():
    """The replicates of a pair, under draws of all groups, by plain sums over its rows."""
    rows, masks, columns = rows_of(), masks_of(2), columns_of()
    kept = np.sum(list(masks.values()), axis=0) >= 2
    names = np.array(columns["groups"])
    present_groups = sorted(set(names[kept]))
    draws = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (6, len(present_groups)))).double()
    found = measure_under_draws(rows, draws, columns["groups"], present=masks, include=("gap",))
    unit = {name: matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for name, matrix in rows.items()}
    for first, second in combinations(NAMES, 2):
        chosen = masks[first] & masks[second]
        cosines = np.sum(unit[first] * unit[second], axis=1)[chosen]
        for replicate, draw in enumerate(draws.numpy()):
            weights = np.array([draw[present_groups.index(name)] for name in names[chosen]])
            value = found[f"gap/true_pair_cosine/{first}-{second}"][1 + replicate]
            assert float(value) == pytest.approx((weights * cosines).sum() / weights.sum(), abs=1e-6)


def test_a_pair_of_fewer_than_two_common_rows_is_left_out_by_name():
    rows, masks = rows_of(), masks_of()
    masks["ecg"] = ~masks["image"]
    masks["ecg"][np.flatnonzero(masks["image"])[0]] = True
    found = measure(rows, present=masks, include=("gap", "retrieval"))
    assert found["pairs"]["image-ecg"]["n"] == 1
    assert "fewer than 2 rows have both" in found["pairs"]["image-ecg"]["left_out"]
    assert not any("image-ecg" in key or "image_to_ecg" in key for key in found)
    assert "left_out" in found["complete"]
    assert not any("@complete" in key for key in found)
    assert found["gap/margin"] == pytest.approx((found["gap/margin/image-text"] + found["gap/margin/text-ecg"]) / 2)


def test_masks_that_cannot_be_measured_are_refused_by_name():
    rows, masks = rows_of(), masks_of()
    nobody = np.zeros(NUM_ROWS, dtype=bool)
    with pytest.raises(DataRefused, match="no row has ecg; leave ecg out"):
        measure(rows, present={"ecg": nobody})
    half = np.arange(NUM_ROWS) < NUM_ROWS // 2
    with pytest.raises(DataRefused, match=r"0 of 70 rows do \(image 35, text 35\)"):
        measure({name: rows[name] for name in ("image", "text")}, present={"image": half, "text": ~half})
    single = {name: np.arange(NUM_ROWS) % 3 != number for number, name in enumerate(NAMES)}
    few = {name: mask & (np.arange(NUM_ROWS) < 3) for name, mask in single.items()}
    with pytest.raises(DataRefused, match=r"no pair of modalities has 2 rows in common .*image-text 1"):
        measure(rows, present=few)
    with pytest.raises(ValueError, match="present names 'audio'"):
        measure(rows, present={"audio": nobody})
    for wrong in (masks["image"][:-1], masks["image"].astype(int)):
        with pytest.raises(ValueError, match=r"present\['image'\] is 70 bools"):
            measure(rows, present={"image": wrong})


def test_a_difference_of_methods_stands_on_the_same_rows():
    rows, masks = rows_of(), masks_of()
    other = rows_of(1)
    found = measure_difference([rows], [other], present=masks, num_bootstrap=5, include=("gap",))
    one, two = (measure(run, present=masks, include=("gap",)) for run in (rows, other))
    key = "gap/margin/text-ecg"
    assert found[key]["value"] == pytest.approx(one[key] - two[key], abs=1e-9)
    assert f"{key}@complete" in found


def test_every_key_is_in_the_catalogue():
    found = measure(rows_of(), **columns_of(), present=masks_of(), joint=["image+ecg->text"])
    without = [key for key in found if "/" in key and entry_of(key) is None and not key.startswith("grouping/")]
    assert without == []
    assert entry_of("retrieval/image+ecg_to_text/R@5@complete").key == "retrieval/<direction>/R@<k>"


def test_labels_of_absent_rows_stack_what_is_there():
    """Grouping by the rows that are there: the classes of two far clusters are found, whatever is missing."""
    classes = np.arange(NUM_ROWS) % 2
    far = np.eye(8)[classes] * 10
    random = np.random.default_rng(0)
    rows = {name: (far + 0.1 * random.standard_normal((NUM_ROWS, 8))).astype(np.float32) for name in NAMES}
    found = measure(rows, [f"c{one}" for one in classes], present=masks_of(3), include=("grouping", "gap"))
    for key in ("knn_accuracy", "zero_shot_accuracy", "linear_probe"):
        assert found[f"grouping/{key}"] == 1.0
    assert found["grouping/v_measure"]["mean"] == pytest.approx(1.0)
    kept = np.sum(list(masks_of(3).values()), axis=0) >= 2
    shown = np.concatenate([classes[mask & kept] for mask in masks_of(3).values()])
    assert found["grouping/majority_accuracy"] == pytest.approx(max(shown.mean(), 1 - shown.mean()))


def test_a_joint_query_worked_by_hand():
    """Four targets on the axes. Row 0 has both parts, 1 and 2 one each, 3 none; each part alone points between."""
    axes = np.eye(4)
    text = axes.copy()
    image = np.stack([axes[0] + axes[1], axes[1], [np.nan] * 4, [np.nan] * 4])
    history = np.stack([axes[0] - axes[1], [np.nan] * 4, axes[0], [np.nan] * 4])
    has_image, has_history = np.array([1, 1, 0, 0], dtype=bool), np.array([1, 0, 1, 0], dtype=bool)
    rows = {"image": image, "history": history, "text": text}
    found = measure(
        rows,
        present={"image": has_image, "history": has_history},
        joint=["image+history->text", "history+image:text"],
        include=("gap",),
    )
    # Row 0: (axes 0 + 1) + (0 - 1) = axis 0: rank 1. Row 1: axis 1, rank 1. Row 2: axis 0 finds row 0, and its own
    # text ties with that of row 1: ranks 2 and 3. Row 3 has no part, and its text is in no gallery.
    assert found["joint"]["image+history_to_text"] == {
        "n": 3,
        "gallery_size": 3,
        "weights": {"image": 1.0, "history": 1.0},
        "parts": {"image": 2, "history": 2},
        "all_parts": 1,
    }
    for direction in ("image+history_to_text", "history+image_to_text"):
        assert found[f"retrieval/{direction}/R@1"] == pytest.approx(2 / 3)
        assert found[f"retrieval/{direction}/MRR"] == pytest.approx((1 + 1 + (1 / 2 + 1 / 3) / 2) / 3)
    # With a weight beside which the history rounds to nothing, row 0 is its image, whose pair ties with that of row 1.
    weighted = measure(
        rows,
        present={"image": has_image, "history": has_history},
        joint=["image=1e18+history->text"],
        include=("gap",),
    )
    assert weighted["retrieval/image+history_to_text/R@1"] == pytest.approx((0.5 + 1 + 0) / 3)


def test_joint_queries_of_complete_rows_are_retrieval_of_their_mean():
    rows, columns = rows_of(), columns_of()
    found = measure(rows, captions=columns["captions"], joint=["image+ecg->text"], include=("retrieval",))
    unit = {name: matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for name, matrix in rows.items()}
    asked = {"query": unit["image"] + unit["ecg"], "text": unit["text"]}
    expected = measure(asked, captions=columns["captions"], include=("retrieval",))
    for name in ("R@1", "R@5", "R@10", "MRR", "median_rank", "lenient_R@5"):
        direction = "retrieval/image+ecg_to_text"
        assert found[f"{direction}/{name}"] == pytest.approx(expected[f"retrieval/query_to_text/{name}"], abs=1e-6)
    alone = measure(rows, captions=columns["captions"], include=("retrieval",))
    assert found["retrieval/mean/R@10"] == alone["retrieval/mean/R@10"], "a joint query is no part of the mean"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image->text", "a joint query is PART"),
        ("image+text", "a joint query is PART"),
        ("image+sound->text", "unknown modality of the joint query .* 'sound'"),
        ("image+text->text", "looks for none of them"),
        ("image+image->text", "different parts"),
        ("image=0+ecg->text", "numbers above 0"),
        ("image=two+ecg->text", "numbers above 0"),
    ],
)
def test_joint_queries_that_say_nothing_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        measure(rows_of(), joint=[text])


def test_a_direction_twice_is_refused():
    with pytest.raises(UsageError, match="given twice"):
        measure(rows_of(), joint=["image+ecg->text", "image=2+ecg->text"])
