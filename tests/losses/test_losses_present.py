"""Rows that lack modalities: the loss is the formula row by row, and absent rows are nothing to it."""

import json
import math
from dataclasses import asdict, replace
from itertools import combinations
from unittest.mock import patch

import pytest
import torch
from masked_reference import reference_terms

from gapless.core.errors import UsageError
from gapless.losses import gap_closing
from gapless.losses.base import FIRST, METHODS, check_takes_present, label_column, takes_present, terms_of
from gapless.losses.engine import tiled
from gapless.losses.gap_closing import GapClosingLoss, GapLossTerms, MaskedGapLossTerms
from gapless.losses.gap_closing_methods import GapClosingSettings
from gapless.losses.present import joined

NAMES = ("image", "text", "ecg", "labs")
ANCHOR_PAIRS = [(name, "text") for name in NAMES if name != "text"]
ALL_PAIRS = list(combinations(NAMES, 2))


def unit_batch(num_rows, seed=0, names=NAMES, dim=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    rows = {name: torch.randn(num_rows, dim, generator=generator, dtype=dtype) for name in names}
    return {name: torch.nn.functional.normalize(x, dim=1).requires_grad_() for name, x in rows.items()}


def random_masks(num_rows, seed=0, names=NAMES, shares=(0.9, 0.7, 0.4, 0.5)):
    generator = torch.Generator().manual_seed(100 + seed)
    return {name: torch.rand(num_rows, generator=generator) < share for name, share in zip(names, shares, strict=True)}


def spoiled(embeddings, present, value=math.nan):
    """The same rows with NaN, or another value, where they are absent."""
    return {
        name: torch.where(present[name][:, None], rows.detach(), torch.full_like(rows, value)).requires_grad_()
        for name, rows in embeddings.items()
    }


def lists(tensors):
    return {name: x.tolist() for name, x in tensors.items()}


def some_positives(kind, num_rows, seed=0):
    generator = torch.Generator().manual_seed(200 + seed)
    numbers = {name: torch.randint(0, num_rows - 2, (num_rows,), generator=generator) for name in NAMES}
    return {"none": None, "rows": numbers["text"], "modalities": {n: numbers[n] for n in ("text", "labs")}}[kind]


def plain_positives(positives):
    return lists(positives) if isinstance(positives, dict) else None if positives is None else positives.tolist()


def engine(kind):
    """The plain formulas, or the tiled ones with tiles of a few rows."""
    tiny = patch.multiple(tiled, CPU_TILE=3, POSITIVES_TILE=2, KEPT_ELEMENTS=20)
    return patch.multiple(gap_closing, PLAIN_ON_CPU=256 if kind == "plain" else 0), tiny


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("positives", ["none", "rows", "modalities"])
@pytest.mark.parametrize("kind", ["plain", "tiled"])
def test_every_term_is_the_formula_row_by_row(kind, positives, seed):
    """Each pair on its own rows, weighted by rows times weight; with NaN in every absent row."""
    embeddings, present = unit_batch(9, seed), random_masks(9, seed)
    numbers = some_positives(positives, 9, seed)
    weights, alignment = {"ecg": 0.25, "image+text": 3.0}, {"labs": 0.0}
    for pairs, listed in (("anchor", ANCHOR_PAIRS), ("all", ALL_PAIRS), ([("image", "ecg")], [("image", "ecg")])):
        loss = GapClosingLoss(
            temperature=0.2, pairs=pairs, modality_weights=weights, alignment_modality_weights=alignment
        ).double()
        one, other = engine(kind)
        with one, other:
            terms = loss(spoiled(embeddings, present), present=present, positives=numbers)
        scale = float(loss.logit_scale.detach().exp())
        options = {"positives": plain_positives(numbers), "weights": weights, "alignment_weights": alignment}
        expected = reference_terms(lists(embeddings), lists(present), listed, scale, **options)
        assert torch.stack(terms[1:]).tolist() == pytest.approx(expected, abs=1e-9)
        assert terms.total.item() == pytest.approx(sum(expected[:3]), abs=1e-9)


@pytest.mark.parametrize("kind", ["plain", "tiled"])
@pytest.mark.parametrize("positives", ["none", "rows", "modalities"])
def test_the_gradient_is_that_of_central_differences(kind, positives):
    present, numbers = random_masks(6, 1), some_positives(positives, 6)
    loss = GapClosingLoss(temperature=0.3, pairs="all", modality_weights={"ecg": 0.5}).double()
    embeddings = unit_batch(6, 1, dim=2)

    def total(*rows):
        return loss(dict(zip(NAMES, rows, strict=True)), present=present, positives=numbers).total

    one, other = engine(kind)
    with one, other:
        assert torch.autograd.gradcheck(total, tuple(embeddings.values()), atol=1e-6)


@pytest.mark.parametrize("kind", ["plain", "tiled"])
@pytest.mark.parametrize("positives", ["none", "rows", "modalities"])
def test_what_absent_rows_hold_changes_nothing_and_gets_no_gradient(kind, positives):
    embeddings, present = unit_batch(12), random_masks(12)
    numbers, loss, found = some_positives(positives, 12), GapClosingLoss(pairs="all").double(), []
    for value in (math.nan, math.inf, 0.0, 1e30):
        rows = spoiled(embeddings, present, value)
        one, other = engine(kind)
        with one, other:
            terms = loss(rows, present=present, positives=numbers)
        loss.zero_grad()
        terms.total.backward()
        for name, x in rows.items():
            assert x.grad.isfinite().all()
            assert (x.grad[~present[name]] == 0).all()
            assert (x.grad[present[name]] != 0).any()
        found.append(
            torch.cat([torch.stack(terms), loss.logit_scale.grad[None], *(x.grad.flatten() for x in rows.values())])
        )
    assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize("positives", ["none", "rows"])
@pytest.mark.parametrize("num_rows", [30, 300])
@pytest.mark.parametrize("names", [("image", "text"), NAMES])
def test_all_present_and_equal_weights_is_the_loss_of_complete_rows_to_the_bit(names, num_rows, positives):
    numbers = None if positives == "none" else torch.arange(num_rows) // 2
    masks = {name: torch.ones(num_rows, dtype=torch.bool) for name in names}
    values = []
    for present, weights in ((None, None), (masks, None), ({}, {}), (masks, dict.fromkeys(names, 1.0))):
        loss = GapClosingLoss(alignment_weight=2.0, modality_weights=weights)
        rows = unit_batch(num_rows, names=names, dtype=torch.float32)
        terms = loss(rows, present=present, positives=numbers)
        terms.total.backward()
        values.append([*terms[:4], loss.logit_scale.grad, *(x.grad for x in rows.values())])
        if present is not None:
            assert terms[4:] == (0, num_rows * (len(names) - 1))
    for others in values[1:]:
        assert all(torch.equal(one, other) for one, other in zip(values[0], others, strict=True))


@pytest.mark.parametrize("positives", ["none", "rows", "modalities"])
def test_the_order_of_rows_and_of_modalities_does_not_matter(positives):
    embeddings, present, numbers = unit_batch(20), random_masks(20), some_positives(positives, 20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(5))
    loss = GapClosingLoss(pairs="all", modality_weights={"labs": 0.1}).double()

    def permuted(x):
        return {name: permuted(part) for name, part in x.items()} if isinstance(x, dict) else x[order]

    before = loss(embeddings, present=present, positives=numbers)
    rows = {name: embeddings[name][order] for name in reversed(NAMES)}
    after = loss(rows, present=permuted(present), positives=None if numbers is None else permuted(numbers))
    torch.testing.assert_close(torch.stack(after), torch.stack(before), rtol=1e-12, atol=1e-12)


def test_the_control_of_masks_that_are_not_used_is_another_loss():
    embeddings, present = unit_batch(12), random_masks(12)
    loss = GapClosingLoss().double()
    masked, complete = loss(embeddings, present=present), loss(embeddings)
    assert all((one - other).detach().abs() > 1e-3 for one, other in zip(masked[:4], complete, strict=True))


def test_worked_by_hand():
    """Two rows have an image, three a report and two of these labs: pairs on their own rows, weights by rows."""
    east, north = [1.0, 0.0], [0.0, 1.0]
    embeddings = {
        "image": torch.tensor([east, north, east]),
        "text": torch.tensor([east, north, north]),
        "labs": torch.tensor([north, east, north]),
    }
    present = {"image": torch.tensor([True, True, False]), "labs": torch.tensor([True, False, True])}
    terms = GapClosingLoss(temperature=1.0, learn_temperature=False)(embeddings, present=present)
    right = math.log(1 + math.exp(-1))  # image and text: each finds its own at 1, the other at 0
    # labs north, north against text east, north: scores [[0, 1], [0, 1]]
    towards = (math.log(1 + math.e) + math.log(1 + math.exp(-1))) / 2
    backwards = math.log(2)
    assert terms.contrastive.item() == pytest.approx((right + (towards + backwards) / 2) / 2, abs=1e-6)
    assert terms.alignment.item() == pytest.approx((0 + (2 + 0) / 2) / 2)
    # all three centroids count: (east + east + north) / 3, north, north
    centroid = torch.nn.functional.normalize(torch.tensor([2.0, 1.0]), dim=0)
    far = math.exp(-2 * float((centroid - torch.tensor(north)).square().sum()))
    assert terms.uniformity.item() == pytest.approx(math.log((2 * 2 * far + 2) / 6), abs=1e-6)
    assert terms.skipped_pairs == 0
    assert terms.compared_rows == 4


def test_pairs_of_fewer_than_two_rows_are_skipped_and_counted():
    embeddings = unit_batch(4, names=("image", "text", "ecg"))
    once, never = torch.tensor([True, False, False, False]), torch.zeros(4, dtype=torch.bool)
    for ecg in (once, never):
        rows = spoiled(embeddings, {"image": ~never, "text": ~never, "ecg": ecg})
        terms = GapClosingLoss().double()(rows, present={"ecg": ecg})
        two = {name: embeddings[name] for name in ("image", "text")}
        assert terms.contrastive.item() == pytest.approx(GapClosingLoss().double()(two).contrastive.item(), abs=1e-12)
        assert (int(terms.skipped_pairs), int(terms.compared_rows)) == (1, 4)


def test_a_batch_of_nothing_to_compare_is_zero_with_zero_gradients():
    embeddings, loss = unit_batch(3, names=("image", "text")), GapClosingLoss().double()
    terms = loss(embeddings, present={"image": torch.zeros(3, dtype=torch.bool)})
    terms.total.backward()
    assert torch.stack(terms).tolist() == [0, 0, 0, 0, 1, 0]
    assert all((rows.grad == 0).all() for rows in embeddings.values())
    assert loss.logit_scale.grad == 0


def test_rows_that_are_all_positives_of_each_other_in_one_pair_cost_nothing():
    embeddings = unit_batch(4, names=("image", "text"))
    masks = {"image": torch.tensor([True, True, False, False])}
    terms = GapClosingLoss().double()(embeddings, present=masks, positives=torch.tensor([0, 0, 1, 2]))
    assert terms.contrastive.item() == pytest.approx(0, abs=1e-12)
    assert terms.uniformity.item() == 0


@pytest.mark.parametrize("changes", [{"pairs": "all"}, {"modality_weights": {"ecg": 0.2}}])
def test_weights_and_pairs_count_on_complete_rows_too(changes):
    embeddings = unit_batch(8)
    everyone = {name: [True] * 8 for name in NAMES}
    loss = GapClosingLoss(temperature=0.2, **changes).double()
    listed = ALL_PAIRS if "pairs" in changes else ANCHOR_PAIRS
    scale = float(loss.logit_scale.detach().exp())
    expected = reference_terms(lists(embeddings), everyone, listed, scale, weights=changes.get("modality_weights"))
    terms = loss(embeddings)
    assert isinstance(terms, GapLossTerms)
    assert torch.stack(terms[1:]).tolist() == pytest.approx(expected[:3], abs=1e-9)


def test_without_normalised_centroids():
    embeddings, present = unit_batch(9), random_masks(9)
    loss = GapClosingLoss(normalise_centroids=False).double()
    terms = loss(spoiled(embeddings, present), present=present)
    expected = reference_terms(lists(embeddings), lists(present), ANCHOR_PAIRS, 14.0, normalise=False)
    assert terms.uniformity.item() == pytest.approx(expected[2], abs=1e-12)


def test_half_precision_rows_and_autocast():
    embeddings, present = unit_batch(10, dtype=torch.float32), random_masks(10)
    halves = {name: rows.detach().to(torch.bfloat16) for name, rows in embeddings.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = GapClosingLoss()(halves, present=present)
    singles = GapClosingLoss()({name: rows.float() for name, rows in halves.items()}, present=present)
    assert terms.total.dtype == torch.float32
    assert terms.total.item() == singles.total.item()


def test_the_second_derivative_is_exact():
    present, loss = random_masks(5, 3), GapClosingLoss(temperature=0.5, pairs="all").double()
    embeddings = unit_batch(5, 3, dim=3)

    def total(*rows):
        return loss(dict(zip(NAMES, rows, strict=True)), present=present).total

    one, other = engine("tiled")
    with one, other:
        assert torch.autograd.gradgradcheck(total, tuple(embeddings.values()), atol=1e-5)


def test_equal_integers_are_joined_over_chains():
    assert joined(torch.arange(6), torch.arange(6)).tolist() == [0, 1, 2, 3, 4, 5]
    chain = torch.arange(400)
    assert joined(chain // 2, (chain + 1) // 2).unique().tolist() == [0]
    assert joined(torch.tensor([7, 7, 1]), torch.tensor([1, 2, 3])).tolist() == [0, 0, 2]


# --- the protocol -----------------------------------------------------------------------------------------------------


def built(name):
    return METHODS[name].build(METHODS[name].settings, "text").double()


def test_the_methods_of_the_paper_take_masks():
    assert all(takes_present(built(name)) for name in FIRST)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_takes_masks_or_refuses_rows_that_lack_a_modality(name):
    loss = built(name)
    embeddings, present = unit_batch(9), random_masks(9)
    if not takes_present(loss):
        with pytest.raises(UsageError, match="takes complete rows only"):
            terms_of(loss, embeddings, present)
        return
    labels = None if label_column(METHODS[name].settings) is None else torch.eye(9)
    terms = terms_of(loss, spoiled(embeddings, present), present, labels=labels)
    assert terms["total"].isfinite()
    assert {"skipped_pairs", "compared_rows"} < terms.keys()


class CompleteOnly(torch.nn.Module):
    def forward(self, embeddings, *, positives=None):
        return GapLossTerms(*[embeddings["text"].sum()] * 4)


def test_a_loss_that_takes_complete_rows_only_says_so():
    embeddings = unit_batch(3)
    assert terms_of(CompleteOnly(), embeddings)["total"].isfinite()
    with pytest.raises(UsageError, match="CompleteOnly takes complete rows only"):
        terms_of(CompleteOnly(), embeddings, {})
    check_takes_present(GapClosingLoss())


def test_bad_masks_pairs_and_weights_are_named():
    embeddings, loss = unit_batch(4), GapClosingLoss()
    for present, message in (
        ({"mri": torch.ones(4, dtype=torch.bool)}, "present names 'mri'"),
        ({"ecg": torch.ones(3, dtype=torch.bool)}, r"present\['ecg'\]: expected 4 bools, one for each row, got \(3,\)"),
        ({"ecg": torch.ones(4)}, r"present\['ecg'\]: expected a tensor of 4 bools, got a tensor of torch.float32"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(embeddings, present=present)
    with pytest.raises(ValueError, match=r"positives\['ecg'\]: expected 4 integers"):
        loss(embeddings, positives={"ecg": torch.arange(3)})
    with pytest.raises(ValueError, match="positives names 'mri'"):
        loss(embeddings, positives={"mri": torch.arange(4)})
    with pytest.raises(ValueError, match="pairs names mri, and the modalities are ecg, image, labs, text"):
        GapClosingLoss(pairs=[("mri", "text")])(embeddings)
    for pairs in ("some", [], [("a",)], [("a", "a")], [("a", "b"), ("b", "a")], ["ab"]):
        with pytest.raises(UsageError, match="pairs"):
            GapClosingLoss(pairs=pairs)
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match=r"modality_weights\.ecg must be finite and at least 0"):
            GapClosingSettings(modality_weights={"ecg": weight})
    rows = {
        name: torch.where(torch.arange(4)[:, None] == 2, torch.full_like(x, math.nan), x)
        for name, x in embeddings.items()
    }
    with pytest.raises(ValueError, match="1 row"):  # a NaN in a row that is present
        loss(rows, present={name: torch.arange(4) != 3 for name in NAMES})


def test_no_anchor_is_needed_where_pairs_are_listed():
    embeddings = unit_batch(5, names=("image", "ecg"))
    assert GapClosingLoss(pairs="all")(embeddings).total.isfinite()
    with pytest.raises(ValueError, match="the anchor 'text' is not among"):
        GapClosingLoss()(embeddings)


def test_settings_become_the_loss_and_lists_of_pairs_survive_a_file():
    method = METHODS["gapless-published"]
    settings = replace(METHODS["clip"].settings, pairs="all")
    settings = replace(settings, pairs=[["image", "ecg"]])
    assert settings == replace(settings) == GapClosingSettings(**json.loads(json.dumps(asdict(settings))))
    settings = method.changed({"pairs": [["image", "ecg"]], "modality_weights": {"ecg": 0.5}})
    loss = method.build(settings, "text")
    assert loss.pairs == (("image", "ecg"),)
    assert loss.modality_weights == loss.alignment_modality_weights == {"ecg": 0.5}
    assert isinstance(loss(unit_batch(4), present={}), MaskedGapLossTerms)
