"""GRAM, TRIANGLE, Symile and PMRL against dense references and by hand, with the failures that their papers leave."""

import math
from dataclasses import replace
from itertools import product
from unittest.mock import patch

import published_reference as reference
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from gapless.core.errors import UsageError
from gapless.losses import gap_closing
from gapless.losses.base import METHODS, begin_step, takes_present
from gapless.losses.engine import row_blocks, tiled
from gapless.losses.gram import GramSettings, row_volumes, volumes
from gapless.losses.pairs import check_settings_names
from gapless.losses.pmrl import principal_directions
from gapless.losses.saved import build_loss, describe_loss
from gapless.losses.symile import SymileSettings, row_products
from gapless.losses.triangle import four_squared_areas

NAMES = ("gram", "triangle", "symile", "pmrl")
POSITIVES = torch.tensor([0, 1, 2, 0, 3, 3, 4])
ALL = {"symile": {"negatives": "n_squared"}}


def unit(seed, num_rows=7, dim=5):
    rows = torch.randn(num_rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normalize(rows, dim=1)


def batch(num_rows=7, dim=5):
    return {name: unit(seed, num_rows, dim).requires_grad_() for seed, name in enumerate(("image", "wave", "text"))}


def built(name, **changes):
    temperature = {} if name == "pmrl" else {"temperature": 0.2}
    loss = METHODS[name].build(replace(METHODS[name].settings, **temperature, **changes), "text").double()
    if name != "pmrl":
        with torch.no_grad():
            loss.logit_scale.fill_(-math.log(0.2))  # in float64: made of fp32
    return loss


def expected(name, rows, positives):
    numbers = torch.arange(7) if positives is None else positives
    same = (numbers[:, None] == numbers[None, :]).numpy()
    matrices = [x.detach().numpy() for x in rows.values()]
    if name == "pmrl":
        return reference.pmrl(matrices, same)
    return {"gram": reference.gram, "triangle": reference.triangle, "symile": reference.symile_all}[name](
        matrices, 5.0, same
    )


@pytest.fixture(params=["whole", "blocks"])
def engine(request):
    """Whole matrices, and blocks of two rows."""
    if request.param == "whole":
        yield
        return
    tiles = patch.multiple(tiled, CPU_TILE=4, KEPT_ELEMENTS=16)
    with patch.object(gap_closing, "PLAIN_ON_CPU", 0), tiles, patch.object(row_blocks, "BLOCK_ELEMENTS", 14):
        yield


@pytest.mark.parametrize("positives", [None, POSITIVES])
@pytest.mark.parametrize("name", NAMES)
def test_the_value_is_that_of_the_dense_reference(name, positives, engine):
    rows = batch()
    terms = built(name, **ALL.get(name, {}))(rows, positives=positives)
    assert terms.total.item() == pytest.approx(expected(name, rows, positives), abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_central_differences(name, engine):
    rows, loss = batch(4, 4), built(name, **ALL.get(name, {}))

    def total(*changed):
        return loss(dict(zip(rows, changed, strict=True))).total

    assert torch.autograd.gradcheck(total, tuple(rows.values()), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_rotation_and_order_change_nothing(name):
    rows, loss = batch(), built(name, **ALL.get(name, {}))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    moved = {key: x[order] for key, x in rows.items()}
    if name != "symile":  # a product by coordinates depends on the axes
        rotation = torch.linalg.qr(unit(9, 5, 5))[0]
        moved = {key: x @ rotation for key, x in moved.items()}
    assert loss(moved).total.item() == pytest.approx(loss(rows).total.item(), abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_pairing_costs_more(name):
    """The control: rows that share their largest coordinate, and the same with two modalities of other rows."""
    z = normalize(torch.eye(6).double() + 0.05 * unit(0, 6, 6), dim=1)
    loss = built(name, **ALL.get(name, {}))
    right = {"image": z, "wave": normalize(z + 0.05 * unit(1, 6, 6), dim=1), "text": z.roll(0, 0)}
    wrong = {**right, "image": z.roll(1, 0), "wave": z.roll(2, 0)}
    assert loss(right).total < loss(wrong).total - 0.2


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_lack_a_modality_are_refused_and_settings_are_saved(name):
    loss = built(name)
    assert not takes_present(loss)
    settings = replace(METHODS[name].settings, temperature=0.3, mask_duplicates=True)
    again = build_loss(describe_loss(METHODS[name], settings, "image"))
    assert (again.settings, again.anchor) == (settings, "image")


@pytest.mark.parametrize(
    ("settings", "names", "sentence"),
    [
        (METHODS["triangle"].settings, ["image", "text"], "triangle takes exactly 3 modalities, and there are 2"),
        (METHODS["triangle"].settings, list("abcd"), "triangle takes exactly 3 modalities, and there are 4"),
        (METHODS["gram"].settings, list("abcdef"), "gram takes 2 to 5 modalities, and there are 6"),
        (METHODS["pmrl"].settings, ["image"], "pmrl takes at least 2 modalities, and there are 1"),
        (SymileSettings(negatives="n_squared"), list("ab"), "n_squared takes exactly 3 modalities, and there are 2"),
    ],
)
def test_a_number_of_modalities_that_a_method_cannot_take_is_refused_with_the_recipe(settings, names, sentence):
    with pytest.raises(UsageError, match=sentence):
        check_settings_names(settings, names)
    check_settings_names(METHODS["clip"].settings, names)  # the control


def test_settings_out_of_range_are_refused():
    with pytest.raises(UsageError, match=r"loss.label_smoothing must be at least 0 and below 1, got 1.0"):
        GramSettings(label_smoothing=1.0)
    with pytest.raises(UsageError, match=r"unknown value of loss.negatives 'all'"):
        SymileSettings(negatives="all")


def test_volumes_by_hand():
    axes = torch.eye(3)
    assert row_volumes({"a": axes[:1], "b": axes[1:2], "c": axes[2:]}, "c").item() == pytest.approx(1)
    angled = torch.tensor([[0.6, 0.8, 0.0]])
    assert volumes(axes[:1], [angled]).item() == pytest.approx(0.8)  # the sine of the angle
    four = [unit(seed, 6, 7) for seed in range(4)]
    expected = [[reference.volume([a, *(x[j] for x in four[1:])]) for j in range(6)] for a in four[0]]
    assert torch.allclose(volumes(four[0], four[1:]), torch.tensor(expected, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("sign", [1, -1])
def test_gram_does_not_see_the_third_modality_where_two_are_equal_or_opposite(sign):
    """Its known failure; the gradient there is finite."""
    z, third = unit(0).requires_grad_(), unit(2)
    for other in (third, third.roll(1, 0)):
        assert row_volumes({"a": z, "b": sign * z, "c": other}, "c").abs().max() < 1e-7
    assert row_volumes({"a": z, "b": unit(1), "c": third}, "c").min() > 1e-3  # the control
    built("gram")({"image": z, "wave": sign * z, "text": third}).total.backward()
    assert z.grad.isfinite().all()


def test_areas_by_hand_and_the_known_failure_of_triangle():
    one, two, three = torch.eye(3).double().split(1)
    squares = four_squared_areas(one, two, three)
    assert math.sqrt(squares.item()) / 2 == pytest.approx(math.sqrt(3) / 2)
    z, third = unit(0), unit(2)
    for other in (third, third.roll(1, 0)):  # two equal: 0, whatever the third is
        assert four_squared_areas(other, z, z).diagonal().abs().max() < 1e-12
    rows = {"image": z.requires_grad_(), "wave": z.detach().clone(), "text": third}
    built("triangle", use_area=True)(rows).total.backward()
    assert z.grad.isfinite().all()


def test_the_area_itself_is_another_loss_than_twice_its_square():
    rows = batch()
    arrays = {key: x.detach().numpy() for key, x in rows.items()}
    areas = torch.tensor(
        [
            [reference.area(a, b, c) for b, c in zip(arrays["image"], arrays["wave"], strict=True)]
            for a in arrays["text"]
        ],
        dtype=torch.float64,
    )
    target = torch.arange(7)
    logits = -5 * areas
    both = cross_entropy(logits, target, label_smoothing=0.1) + cross_entropy(logits.T, target, label_smoothing=0.1)
    assert built("triangle", use_area=True)(rows).total.item() == pytest.approx(both.item() / 2, abs=1e-9)
    assert abs(built("triangle")(rows).total.item() - both.item() / 2) > 1e-3


def test_symile_by_hand():
    """Two rows of three equal axes: the product is 1 for the true row and 0 otherwise, against n^2 - 1 = 3 others."""
    axes = torch.eye(2).double()
    loss = built("symile", negatives="n_squared")({"a": axes, "b": axes, "text": axes})
    assert loss.total.item() == pytest.approx(math.log(math.exp(5) + 3) - 5)
    assert loss.true_product.item() == pytest.approx(1)
    pair = [unit(0), unit(1)]
    assert torch.allclose(row_products(pair), (pair[0] * pair[1]).sum(1))  # two modalities: their cosine


def test_symile_with_shuffled_negatives_is_what_its_orders_say():
    rows = batch()
    torch.manual_seed(3)
    found = built("symile")(rows).total.item()
    torch.manual_seed(3)
    z, total = {key: x.detach() for key, x in rows.items()}, 0.0
    for name, x in z.items():
        others = [rows for key, rows in z.items() if key != name]
        shuffled = [rows[torch.randperm(7)] for rows in others]
        logits = 5 * torch.stack([(shuffled[0][j] * shuffled[1][j] * x).sum(1) for j in range(7)], dim=1)
        true = 5 * (x * others[0] * others[1]).sum(1)
        total += cross_entropy(torch.where(torch.eye(7).bool(), true[:, None], logits), torch.arange(7)).item()
    assert found == pytest.approx(total / 3, abs=1e-10)
    assert built("symile")(rows).total.item() != found  # the orders are drawn anew


def test_symile_masks_the_same_rows_among_its_shuffled_negatives():
    rows = batch()
    torch.manual_seed(0)
    alone = built("symile")(rows).total
    torch.manual_seed(0)
    masked = built("symile")(rows, positives=torch.zeros(7, dtype=torch.long).index_fill(0, torch.tensor([6]), 1))
    assert masked.total < alone


def test_symile_does_not_see_two_flips():
    """Its known failure: x, -y and -v have the product of x, y and v, with other cosines between them."""
    rows = batch()
    flipped = {**rows, "wave": -rows["wave"], "text": -rows["text"]}
    loss = built("symile", negatives="n_squared")
    assert loss(flipped).total.item() == pytest.approx(loss(rows).total.item())
    once = {**rows, "text": -rows["text"]}
    assert abs(loss(once).total.item() - loss(rows).total.item()) > 1e-3  # the control
    clip = METHODS["clip"].build(METHODS["clip"].settings, "text").double()
    assert abs(clip(flipped).total.item() - clip(rows).total.item()) > 1e-3


def test_symile_learns_what_no_two_modalities_tell():
    """XOR: the third sign is the product of the two others. True rows stand apart by products, and not by cosines."""
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=2))).double()
    x, y = signs[:, :1], signs[:, 1:]
    v = x * y
    assert torch.equal(row_products([x, y, v]), torch.ones(4).double())
    assert (x * v).mean() == 0
    assert (y * v).mean() == 0


def test_pmrl_by_hand():
    """Equal modalities: one singular value of sqrt(3); orthonormal ones: all 1, log 3."""
    z = torch.eye(3).double()
    equal = built("pmrl")({"a": z, "b": z, "text": z})
    assert equal.within_rows.item() == pytest.approx(0, abs=1e-12)
    assert equal.between_rows.item() == pytest.approx(math.log(1 + 2 * math.exp(-10)))
    apart = {"a": z, "b": z.roll(1, 0), "text": z.roll(2, 0)}
    assert built("pmrl")(apart).within_rows.item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("degenerate", ["equal", "orthonormal"])
def test_pmrl_has_finite_gradients_where_eigenvalues_are_equal(degenerate):
    z = torch.eye(3).double().requires_grad_()
    rows = {"a": z, "b": z if degenerate == "equal" else z.roll(1, 0), "text": z if degenerate == "equal" else -z}
    built("pmrl")(rows).total.backward()
    assert z.grad.isfinite().all()


def test_the_sign_of_a_principal_direction_is_that_of_the_mean():
    """What the shipped code leaves open: the sign of u changes every cosine between rows."""
    rows = [unit(seed) for seed in range(3)]
    values, directions = principal_directions(rows)
    assert ((directions * torch.stack(rows).mean(0)).sum(1) > 0).all()
    assert torch.allclose(directions.norm(dim=1), torch.ones(7).double())
    assert torch.allclose(principal_directions([-x for x in rows])[1], -directions)
    matrices = torch.stack(rows, dim=2)
    left, sigma, _ = torch.linalg.svd(matrices, full_matrices=False)
    assert torch.allclose(values, sigma)
    assert torch.allclose((left[:, :, 0] * directions).sum(1).abs(), torch.ones(7).double())


def test_pmrl_counts_an_opposite_modality_as_aligned():
    """Its known failure."""
    z = unit(0)
    assert torch.allclose(principal_directions([z, -z])[0], principal_directions([z, z])[0])
    assert not torch.allclose(principal_directions([z, unit(1)])[0], principal_directions([z, z])[0])


def test_positives_by_modality_are_joined():
    rows, loss = batch(), built("gram")
    numbers = {"text": torch.tensor([0, 0, 1, 2, 3, 4, 5]), "wave": torch.tensor([0, 1, 1, 2, 3, 4, 5])}
    joined = torch.tensor([0, 0, 0, 1, 2, 3, 4])
    assert loss(rows, positives=numbers).total.item() == pytest.approx(loss(rows, positives=joined).total.item())


def test_the_orders_of_symile_come_from_the_seed_and_the_step():
    rows = {key: x.detach() for key, x in batch().items()}
    loss, totals = built("symile"), {}
    for seed, step in ((0, 1), (0, 2), (1, 1), (0, 1)):
        begin_step(loss, seed, step)
        totals.setdefault((seed, step), []).append(loss(rows).total.item())
    assert totals[0, 1][0] == totals[0, 1][1]
    assert len({values[0] for values in totals.values()}) == 3
