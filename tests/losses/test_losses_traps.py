"""What people report of contrastive losses: each is right, or one sentence that says what arrived and what to do."""

import json
import subprocess
import sys
import warnings

import pytest
import torch

from gapless.losses.contrastive import info_nce, symmetric_info_nce
from gapless.losses.engine.tiled import tiled_symmetric_info_nce
from gapless.losses.gap_closing import PLAIN_ON_CPU, GapClosingLoss

SIZES = [24, PLAIN_ON_CPU + 24]  # the plain functions, and the tiled engine


def rows_of(num_rows, seed=0, dtype=torch.float32):
    rows = torch.randn(num_rows, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=1).to(dtype)


def pair(num_rows=24, **dtypes):
    return {
        name: rows_of(num_rows, seed, dtypes.get(name, torch.float32)) for seed, name in enumerate(("image", "text"))
    }


def differentiated(embeddings, autocast=None, **options):
    """The terms, and the gradient of each modality."""
    embeddings = {name: rows.clone().requires_grad_() for name, rows in embeddings.items()}
    with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        terms = GapClosingLoss()(embeddings, **options)
    terms.total.backward()
    return terms, {name: rows.grad for name, rows in embeddings.items()}


# ---- precisions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_rows", SIZES)
@pytest.mark.parametrize("other", [torch.float32, torch.float16, torch.bfloat16])
def test_a_modality_in_another_precision_is_raised_to_the_finer_one(num_rows, other):
    mixed = pair(num_rows, image=torch.float64, text=other)
    terms, gradients = differentiated(mixed, positives=torch.arange(num_rows) // 2)
    same = {name: rows.double() for name, rows in mixed.items()}
    expected, expected_gradients = differentiated(same, positives=torch.arange(num_rows) // 2)
    for one, reference in zip(terms, expected, strict=True):
        assert one.dtype == torch.float64
        torch.testing.assert_close(one, reference, rtol=0, atol=1e-12)
    for name, gradient in gradients.items():
        assert gradient.dtype == mixed[name].dtype, "autograd gives the gradient in the precision of the rows"
        tolerance = 1e-10 if gradient.dtype == torch.float64 else 1e-2
        torch.testing.assert_close(gradient.double(), expected_gradients[name], rtol=tolerance, atol=1e-5)


@pytest.mark.parametrize("other", [torch.float16, torch.bfloat16])
def test_the_functions_take_mixed_precisions_too(other):
    a, b = rows_of(9, 0, torch.float64), rows_of(9, 1, other)
    reference = symmetric_info_nce(a, b.double(), 5.0)
    assert symmetric_info_nce(a, b, 5.0) == reference
    assert info_nce(a, b, 5.0) == info_nce(a, b.double(), 5.0)
    torch.testing.assert_close(tiled_symmetric_info_nce(a, b, 5.0, None, 4), reference, rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_rows", SIZES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(num_rows, dtype):
    embeddings = pair(num_rows, image=dtype, text=dtype)
    outside, gradients = differentiated(embeddings)
    inside, inner = differentiated(embeddings, autocast=dtype)
    assert all(torch.equal(one, other) for one, other in zip(inside, outside, strict=True))
    assert all(torch.equal(inner[name], gradients[name]) for name in gradients)


# ---- rows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_rows", SIZES)
@pytest.mark.parametrize("factor", [0.1, 1.5, 4.0, 1e30])
def test_rows_that_were_not_normalised_are_refused(num_rows, factor):
    embeddings = pair(num_rows)
    embeddings["image"][3:] *= factor
    with pytest.raises(ValueError, match=rf"{num_rows - 3} row.* of 'image' are not of norm 1.*row 3 .*normalize"):
        GapClosingLoss()(embeddings)


def test_the_control_raw_rows_give_another_loss():
    """Why they are refused: the terms mean nothing, and nothing would be noticed."""
    embeddings = pair()
    right = symmetric_info_nce(*embeddings.values(), 14.0)
    assert symmetric_info_nce(*(4 * rows for rows in embeddings.values()), 14.0) > 2 * right


def test_rows_of_zeros_and_rounded_rows_pass():
    embeddings = pair(image=torch.bfloat16)
    embeddings["text"][5] = 0.0
    terms, gradients = differentiated(embeddings)
    assert all(value.isfinite() for value in terms)
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("num_rows", SIZES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_rows_that_are_not_finite_are_named(num_rows, value, dtype):
    embeddings = pair(num_rows, text=dtype)
    embeddings["text"][7, 2] = value
    with pytest.raises(ValueError, match=r"1 row.* of 'text' are not finite, the first is row 7"):
        GapClosingLoss()(embeddings)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (pair(1), "needs at least 2, got 1"),
        (pair(0), "needs at least 2, got 0"),
        ({"image": rows_of(5), "text": rows_of(4)}, r"one shape, got .*\(5, 16\).*\(4, 16\)"),
        ({"image": rows_of(5)[:, :0], "text": rows_of(5)[:, :0]}, r"\[pair, dim\] matrices"),
        ({"image": rows_of(5), "text": rows_of(5).numpy()}, "'text': expected a tensor of floating-point.*got ndarray"),
        ({"image": rows_of(5), "text": torch.ones(5, 16, dtype=torch.long)}, "got a tensor of torch.int64"),
        ({"image": rows_of(5), "text": rows_of(5).to(torch.complex64)}, "got a tensor of torch.complex64"),
        ({"image": rows_of(5), "text": rows_of(5).to("meta")}, "one device, got .*'cpu'.*'meta'"),
    ],
)  # fmt: skip
def test_batches_that_do_not_fit_are_shown(embeddings, message):
    with pytest.raises(ValueError, match=message):
        GapClosingLoss()(embeddings)


@pytest.mark.parametrize("num_rows", SIZES)
def test_rows_without_a_gradient_give_values_and_the_temperature_its_gradient(num_rows):
    loss = GapClosingLoss()
    loss(pair(num_rows)).total.backward()
    assert loss.logit_scale.grad.isfinite()
    with torch.inference_mode():
        assert loss(pair(num_rows)).total.isfinite()
    fixed = GapClosingLoss(learn_temperature=False)
    assert not fixed(pair(num_rows)).total.requires_grad


# ---- positives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("positives", "message"),
    [
        (torch.arange(23), r"expected 24 integers, one for each row, got \(23,\)"),
        (torch.eye(24, dtype=torch.long), r"expected 24 integers, one for each row, got \(24, 24\)"),
        (torch.arange(24) == 3, "tensor of 24 integers, one for each row, got a tensor of torch.bool"),
        (torch.full((24,), float("nan")), "got a tensor of torch.float32"),
        (torch.zeros(24, dtype=torch.int32), r"all 24 rows are positives of each other \(0\): nothing to tell apart"),
    ],
)
def test_positives_that_do_not_fit_are_shown(positives, message):
    with pytest.raises(ValueError, match=message):
        GapClosingLoss()(pair(), positives=positives)


@pytest.mark.parametrize("num_rows", SIZES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.uint32, torch.uint64])
def test_every_kind_of_integer_is_taken(num_rows, dtype):
    positives = torch.arange(num_rows) // 3
    expected = GapClosingLoss()(pair(num_rows), positives=positives)
    found = GapClosingLoss()(pair(num_rows), positives=positives.to(dtype))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_the_former_name_warns_and_both_names_are_refused():
    positives = torch.arange(24) // 2
    with pytest.warns(FutureWarning, match="called positives= now"):
        found = GapClosingLoss()(pair(), groups=positives)
    assert torch.equal(found.total, GapClosingLoss()(pair(), positives=positives).total)
    assert not torch.equal(found.total, GapClosingLoss()(pair()).total), "the control"
    with pytest.raises(TypeError, match="former name"):
        GapClosingLoss()(pair(), positives=positives, groups=positives)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GapClosingLoss()(pair(), groups=None)


UNCHECKED = """
import torch
from gapless import GapClosingLoss
rows = {"image": torch.eye(4), "text": torch.eye(4)}
GapClosingLoss()(rows, groups=torch.arange(4))
try:
    GapClosingLoss()(rows, positives=[0, 0, 1, 2])
except ValueError as error:
    print(error)
"""


def test_a_list_is_refused_and_the_warning_names_the_callers_line(tmp_path):
    """In a process of its own: the shape checks of the test run would speak first."""
    (tmp_path / "mine.py").write_text(UNCHECKED)
    done = subprocess.run([sys.executable, tmp_path / "mine.py"], capture_output=True, text=True, check=True)
    assert done.stdout == "positives: expected a tensor of 4 integers, one for each row, got list\n"
    assert "mine.py:5: FutureWarning: groups= of the loss is called positives= now" in done.stderr


def test_positives_have_no_place_without_their_name():
    """A second argument could be taken for what must not be split."""
    with pytest.raises(TypeError, match="positional"):
        GapClosingLoss()(pair(), torch.arange(24))


NUMBERS = """
import sys
from gapless.inference.embed import Collator
samples = [{"id": f"{sys.argv[1]} {row}", "caption": text} for row, text in enumerate(sys.argv[2:])]
print(Collator({}, mask_duplicates=True)(samples)["positives"].tolist())
"""


def started(name, *captions):
    return subprocess.Popen([sys.executable, "-c", NUMBERS, name, *captions], stdout=subprocess.PIPE, text=True)


def numbers_of(process):
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(out)


def test_captions_of_two_processes_are_positives_only_where_they_are_the_same():
    """With several ranks the batch is that of all of them; numbers from 0 in each made unrelated captions one."""
    runs = [started("first", "left effusion", "Cyst.", ""), started("second", "cyst", "right effusion", "")]
    first, second = map(numbers_of, runs)
    assert first[1] == second[0]
    assert len({*first, *second}) == 5
