"""The loss against the paper's formulas, written naively here, and against values worked by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gapless.losses.contrastive import info_nce, symmetric_info_nce
from gapless.losses.gap_closing import GapClosingLoss, align_true_pairs, centroid_uniformity
from gapless.losses.schedules import PUBLISHED_ALIGNMENT, PUBLISHED_UNIFORMITY, Schedule


def unit_rows(num_rows, dim=6, seed=0, dtype=torch.float64):
    rows = torch.randn(num_rows, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return rows / rows.norm(dim=1, keepdim=True)


def batch(num_rows=7, dim=6, names=("image", "text"), seed=0, dtype=torch.float64):
    return {name: unit_rows(num_rows, dim, seed + i, dtype).requires_grad_() for i, name in enumerate(names)}


def on_circle(*degrees):
    """Unit vectors in the plane at these angles: readable by eye."""
    angles = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], dim=1)


# --- the paper's formulas, one number at a time in plain Python -------------------------------------------------


def paper_contrastive(a, b, temperature, groups):
    """-1/N sum_i log( sum_{j in group(i)} exp(a_i.b_j / tau) / sum_j exp(a_i.b_j / tau) ), both directions, halved."""
    total = 0.0
    for queries, keys in ((a, b), (b, a)):
        for i in range(len(a)):
            scores = [
                math.exp(sum(x * y for x, y in zip(queries[i], keys[j], strict=True)) / temperature)
                for j in range(len(a))
            ]
            positives = sum(score for j, score in enumerate(scores) if groups[j] == groups[i])
            total -= math.log(positives / sum(scores)) / len(a)
    return total / 2


def squared_distance(x, y):
    return sum((p - q) ** 2 for p, q in zip(x, y, strict=True))


def paper_alignment(others, anchor):
    n = len(anchor)
    return sum(sum(squared_distance(rows[i], anchor[i]) for i in range(n)) / n for rows in others) / len(others)


def paper_centroids(modalities, normalise):
    centroids = []
    for rows in zip(*modalities, strict=True):
        mean = [sum(values) / len(rows) for values in zip(*rows, strict=True)]
        norm = math.sqrt(sum(value * value for value in mean)) if normalise else 1.0
        centroids.append([value / norm for value in mean])
    return centroids


def published_uniformity(modalities, groups):
    """The authors' code: normalised centroids, mean over the pairs."""
    mu = paper_centroids(modalities, normalise=True)
    kernel = [
        math.exp(-2 * squared_distance(mu[i], mu[j]))
        for i in range(len(mu))
        for j in range(len(mu))
        if groups[i] != groups[j]
    ]
    return math.log(sum(kernel) / len(kernel))


def paper_text_uniformity(modalities):
    """The paper's text: log( 1/N sum_i sum_{j != i} exp(-2 ||mu_i - mu_j||^2) ), centroids as they are."""
    mu = paper_centroids(modalities, normalise=False)
    n = len(mu)
    return math.log(
        sum(math.exp(-2 * squared_distance(mu[i], mu[j])) for i in range(n) for j in range(n) if i != j) / n
    )


@pytest.mark.parametrize("names", [("image", "text"), ("image", "text", "wave"), ("a", "b", "c", "text", "d")])
@pytest.mark.parametrize("grouped", [False, True])
def test_every_term_is_the_formula_of_the_paper(names, grouped):
    embeddings = batch(7, names=names)
    groups = torch.tensor([4, 1, 4, 9, 1, 4, 0]) if grouped else None
    terms = GapClosingLoss(temperature=0.2, alignment_weight=0.5, uniformity_weight=3.0).double()(
        embeddings, positives=groups
    )
    rows = {name: value.tolist() for name, value in embeddings.items()}
    others = [value for name, value in rows.items() if name != "text"]
    ids = groups.tolist() if grouped else list(range(7))
    contrastive = sum(paper_contrastive(other, rows["text"], 0.2, ids) for other in others) / len(others)
    assert terms.contrastive.item() == pytest.approx(contrastive, abs=1e-6)  # tau itself is held in fp32
    assert terms.alignment.item() == pytest.approx(paper_alignment(others, rows["text"]), abs=1e-12)
    assert terms.uniformity.item() == pytest.approx(published_uniformity(list(rows.values()), ids), abs=1e-12)
    expected = terms.contrastive + 0.5 * terms.alignment + 3 * terms.uniformity
    assert terms.total.item() == pytest.approx(expected.item(), abs=1e-12)


def test_the_text_of_the_paper_differs_by_the_documented_constant():
    modalities = list(batch(9).values())
    ours = centroid_uniformity(modalities, normalise_centroids=False).item()
    assert ours + math.log(9 - 1) == pytest.approx(
        paper_text_uniformity([rows.tolist() for rows in modalities]), abs=1e-12
    )
    loss = GapClosingLoss(normalise_centroids=False).double()
    assert loss(dict(zip(("image", "text"), modalities, strict=True))).uniformity.item() == pytest.approx(ours)


# --- by hand ------------------------------------------------------------------------------------------------------


def test_hand_worked_values():
    a, b = on_circle(0, 90), on_circle(0, 90)
    assert symmetric_info_nce(a, b, 1.0).item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert align_true_pairs(on_circle(0, 90), on_circle(180, 90)).item() == pytest.approx((4 + 0) / 2)
    assert centroid_uniformity([on_circle(0, 180)] * 2).item() == pytest.approx(-8.0)
    assert centroid_uniformity([on_circle(0, 90)] * 2).item() == pytest.approx(-4.0)
    # centroids at half the angle, of length cos 45 degrees when they are not normalised
    spread = [on_circle(0, 180), on_circle(90, 270)]
    assert centroid_uniformity(spread, normalise_centroids=False).item() == pytest.approx(-2 * 4 * 0.5)


def test_what_tells_nothing_apart_costs_log_n():
    same = unit_rows(1).expand(5, -1)
    terms = GapClosingLoss().double()({"image": same, "text": same})
    assert terms.contrastive.item() == pytest.approx(math.log(5))
    assert terms.alignment.item() == 0
    assert terms.uniformity.item() == pytest.approx(0, abs=1e-12)


def test_copies_of_one_pair_cost_nothing_as_positives_and_log_k_when_not():
    rows = on_circle(0, 0, 0, 180, 180, 180)
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    assert info_nce(rows, rows, 100.0, groups).item() == pytest.approx(0, abs=1e-12)
    assert info_nce(rows, rows, 100.0).item() == pytest.approx(math.log(3))
    copies = {"image": unit_rows(4).repeat(2, 1), "text": unit_rows(4).repeat(2, 1)}
    grouped = centroid_uniformity(list(copies.values()), torch.arange(4).repeat(2))
    assert grouped.item() == pytest.approx(centroid_uniformity([rows[:4] for rows in copies.values()]).item())


def test_permuting_the_batch_and_renaming_the_groups_changes_nothing():
    embeddings, groups, order = batch(8), torch.tensor([0, 1, 1, 2, 3, 3, 3, 4]), torch.randperm(8)
    loss = GapClosingLoss().double()
    shuffled = loss({name: rows[order] for name, rows in embeddings.items()}, positives=7 * groups[order] - 5)
    for one, other in zip(loss(embeddings, positives=groups), shuffled, strict=True):
        assert one.item() == pytest.approx(other.item(), abs=1e-12)


# --- gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("image", "text"), ("image", "text", "wave")])
@pytest.mark.parametrize("normalise", [True, False])
def test_gradcheck(names, normalise):
    loss = GapClosingLoss(temperature=0.3, normalise_centroids=normalise).double()
    groups = torch.tensor([0, 1, 2, 1, 3])
    rows = list(batch(5, 4, names).values())

    def total(log_scale, *rows):
        return torch.func.functional_call(
            loss, {"logit_scale": log_scale}, (dict(zip(names, rows, strict=True)),), {"positives": groups}
        )[0]

    assert torch.autograd.gradcheck(total, (loss.logit_scale, *rows))


def gradients(loss, embeddings, groups=None):
    return torch.autograd.grad(loss(embeddings, positives=groups).total, list(embeddings.values()))


def test_a_weight_of_zero_reports_the_term_and_leaves_the_gradient_of_clip():
    embeddings = batch(6)
    clip = GapClosingLoss(alignment_weight=0.0, uniformity_weight=0.0).double()
    terms = clip(embeddings)
    whole = GapClosingLoss().double()(embeddings)
    assert terms[1:] == whole[1:]
    assert terms.total.item() == terms.contrastive.item()
    assert not terms.alignment.requires_grad
    assert not terms.uniformity.requires_grad
    scale = clip.logit_scale.detach().exp()
    plain = torch.autograd.grad(symmetric_info_nce(embeddings["image"], embeddings["text"], scale), embeddings.values())
    for ours, theirs in zip(gradients(clip, embeddings), plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_a_zero_row_and_an_antipodal_pair_have_finite_gradients():
    embeddings = batch(5)
    with torch.no_grad():
        embeddings["image"][0] = 0
        embeddings["text"][0] = 0
        embeddings["image"][1] = -embeddings["text"][1]
    terms = GapClosingLoss().double()(embeddings)
    assert all(value.isfinite() for value in terms)
    assert all(gradient.isfinite().all() for gradient in gradients(GapClosingLoss().double(), embeddings))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_fp32(dtype):
    embeddings = {name: rows.detach().to(dtype).requires_grad_() for name, rows in batch(33).items()}
    loss = GapClosingLoss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss(embeddings)
    in_fp32 = loss({name: rows.float() for name, rows in embeddings.items()})
    for value, reference in zip(terms, in_fp32, strict=True):
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(reference.item(), abs=1e-6)
    assert all(gradient.dtype == dtype and gradient.isfinite().all() for gradient in gradients(loss, embeddings))


def test_exact_at_the_highest_scale_in_fp32():
    embeddings = batch(40, 32, dtype=torch.float32)
    with torch.no_grad():
        embeddings["text"].copy_(-embeddings["image"])  # every true pair at the worst place: logits from -100 to 100
    loss = GapClosingLoss(temperature=0.01)
    doubled = {name: rows.double() for name, rows in embeddings.items()}
    assert loss(embeddings).total.item() == pytest.approx(
        GapClosingLoss(temperature=0.01).double()(doubled).total.item(), rel=1e-6
    )


# --- the temperature ----------------------------------------------------------------------------------------------


def test_what_is_declared_learnable_moves_and_what_is_fixed_does_not():
    for learn in (True, False):
        loss = GapClosingLoss(learn_temperature=learn)
        rows = batch(dtype=torch.float32)
        before = loss.logit_scale.item()
        optimizer = torch.optim.SGD([*loss.parameters(), *rows.values()], lr=0.1)
        for _ in range(10):
            optimizer.zero_grad()
            loss(rows).total.backward()
            optimizer.step()
        assert (loss.logit_scale.item() != before) == learn
        assert "logit_scale" in loss.state_dict()


def test_the_temperature_is_clamped_and_stays_in_fp32():
    loss = GapClosingLoss(temperature=0.07)
    assert loss.logit_scale.exp().item() == pytest.approx(1 / 0.07, rel=1e-6)
    exact = loss.logit_scale.item()
    loss.half().bfloat16()
    assert loss.logit_scale.dtype == torch.float32
    assert loss.logit_scale.item() == exact
    with torch.no_grad():
        loss.logit_scale.fill_(9.0)
    loss.clamp_logit_scale()
    assert loss.logit_scale.exp().item() == pytest.approx(100, rel=1e-6)
    fixed = GapClosingLoss(temperature=0.001, learn_temperature=False)
    fixed.clamp_logit_scale()
    assert fixed.logit_scale.exp().item() == pytest.approx(1000, rel=1e-5)


# --- schedules ----------------------------------------------------------------------------------------------------


def test_schedules_move_the_weights():
    loss = GapClosingLoss(alignment_weight=PUBLISHED_ALIGNMENT, uniformity_weight=PUBLISHED_UNIFORMITY).double()
    embeddings = batch()
    for progress, alignment, uniformity in [(0.0, 1, 1), (0.2, 1, 1), (0.45, 1, 0.5), (0.7, 1.4, 0), (1.0, 2, 0)]:
        loss.set_progress(progress)
        terms = loss(embeddings)
        expected = terms.contrastive + alignment * terms.alignment + uniformity * terms.uniformity
        assert terms.total.item() == pytest.approx(expected.item(), abs=1e-12)


@given(st.floats(-0.5, 1.5))
def test_a_schedule_is_numpy_interp(progress):
    numpy = pytest.importorskip("numpy")
    points = ((0.1, 3.0), (0.4, 0.0), (0.5, 2.0))
    assert Schedule(points)(progress) == pytest.approx(numpy.interp(progress, *zip(*points, strict=True)))


@pytest.mark.parametrize(
    "points", [(), ((0.5, 1.0), (0.5, 2.0)), ((0.6, 1.0), (0.5, 2.0)), ((0.0, -1.0),), ((2.0, 1.0),)]
)
def test_a_bad_schedule_is_refused(points):
    with pytest.raises(ValueError, match=r"weight|schedule"):
        Schedule(points)


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "groups", "message"),
    [
        ({"text": None}, None, "at least two modalities, got .'image'"),
        ({"text": None, "wave": unit_rows(7)}, None, "anchor 'text' is not among the modalities .'image', 'wave'"),
        ({"text": unit_rows(6)}, None, r"'text': \(6, 6\)"),
        ({"text": unit_rows(7, 3)}, None, r"'text': \(7, 3\)"),
        ({"text": unit_rows(1), "image": unit_rows(1)}, None, "at least 2, got 1"),
        ({"text": unit_rows(7).index_fill(0, torch.tensor([3, 5]), math.nan)}, None, "2 row.* 'text' .* row 3"),
        ({"text": unit_rows(7).index_fill(0, torch.tensor([3]), math.inf)}, None, "1 row.* 'text' .* row 3"),
        ({}, torch.arange(6), r"expected 7 integers, one for each row, got \(6,\)"),
        ({}, torch.full((7,), 4), r"all 7 rows are positives of each other \(4\)"),
    ],
)
def test_bad_input_is_named(change, groups, message):
    embeddings = {name: rows for name, rows in {**batch(), **change}.items() if rows is not None}
    with pytest.raises(ValueError, match=message):
        GapClosingLoss().double()(embeddings, positives=groups)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": math.nan}, {"temperature": 0.001}])
def test_bad_temperatures_are_refused(options):
    with pytest.raises(ValueError, match="temperature"):
        GapClosingLoss(**options)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_bad_weights_are_refused(weight):
    with pytest.raises(ValueError, match="weight"):
        GapClosingLoss(alignment_weight=weight)
