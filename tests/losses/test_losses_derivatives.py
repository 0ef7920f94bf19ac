"""Every way to differentiate the loss: right against central differences, or one sentence; on both engines."""

import subprocess
import sys

import pytest
import torch
from torch.autograd import forward_ad

from gapless.losses.engine import tiled
from gapless.losses.engine.cached import cached_embeddings, split_batch
from gapless.losses.engine.tiled import tiled_symmetric_info_nce
from gapless.losses.gap_closing import PLAIN_ON_CPU, GapClosingLoss

SIZES = [PLAIN_ON_CPU - 16, PLAIN_ON_CPU + 44]  # the plain functions, and the tiled engine
STEP = 1e-5


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


def problem(num_rows, kind="distinct", weight=1.0):
    """The total as a function of the image rows, a point, and a direction."""
    generator = torch.Generator().manual_seed(num_rows)
    dim = 96 if kind == "repeated" else 12
    text, noise, direction = torch.randn(3, num_rows, dim, generator=generator, dtype=torch.float64)
    image = 0.7 * text + noise
    positives = None
    if kind == "positives":
        positives = torch.arange(num_rows) // 3
    if kind == "repeated":  # equal pairs that are not said to be positives: distances of 0, or just below by rounding
        text, image = (rows[: num_rows // 2].repeat(2, 1) for rows in (text, image))
    text, image = unit(text), unit(image)
    loss = GapClosingLoss(temperature=0.2, alignment_weight=weight, uniformity_weight=2 * weight)
    return lambda x: loss({"image": x, "text": text}, positives=positives).total, image, direction


def central(function, point, direction):
    with torch.no_grad():
        ahead, behind = function(point + STEP * direction), function(point - STEP * direction)
    return (ahead - behind) / (2 * STEP)


def gradient(function, create_graph=False):
    def of(x):
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            return torch.autograd.grad(function(x), x, create_graph=create_graph)[0]

    return of


def assert_near(one, other):
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("num_rows", SIZES)
@pytest.mark.parametrize(
    ("kind", "weight"), [("distinct", 1.0), ("positives", 1.0), ("repeated", 1.0), ("distinct", 0.0)]
)
def test_the_gradient_of_the_gradient(num_rows, kind, weight):
    """Along a direction, which moves the copies of a pair apart, and in a penalty on the gradient's square."""
    total, image, direction = problem(num_rows, kind, weight)
    x = image.clone().requires_grad_()
    first = gradient(total, create_graph=True)(x)
    (along,) = torch.autograd.grad((first * direction).sum(), x, retain_graph=True)
    assert_near(along, central(gradient(total), image, direction))
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert_near((second * direction).sum(), central(lambda x: gradient(total)(x).square().sum(), image, direction))


@pytest.mark.parametrize("num_rows", SIZES)
def test_a_penalty_beside_the_loss_moves_the_temperature(num_rows):
    _, image, direction = problem(num_rows)
    loss = GapClosingLoss(temperature=0.2).double()
    x = image.clone().requires_grad_()

    def penalty():
        total = loss({"image": x, "text": unit(direction)}).total
        return torch.autograd.grad(total, x, create_graph=True)[0].square().sum()

    (by_scale,) = torch.autograd.grad(penalty(), loss.logit_scale)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            loss.logit_scale += sign * STEP
        values.append(penalty().detach())
        with torch.no_grad():
            loss.logit_scale -= sign * STEP
    assert_near(by_scale, (values[0] - values[1]) / (2 * STEP))


def test_the_control_a_gradient_without_its_graph_is_wrong_and_nothing_raises(monkeypatch):
    """What happened before: the tiled terms' gradient was a constant to the second backward pass."""
    total, image, direction = problem(SIZES[1])
    honest = tiled._differentiable_gradients
    monkeypatch.setattr(
        tiled, "_differentiable_gradients", lambda *given: [x if x is None else x.detach() for x in honest(*given)]
    )
    x = image.clone().requires_grad_()
    (second,) = torch.autograd.grad(gradient(total, create_graph=True)(x).square().sum(), x)
    expected = central(lambda x: gradient(total)(x).square().sum(), image, direction)
    assert abs((second * direction).sum() - expected) > 0.1 * abs(expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # of torch's own rules for forward mode
@pytest.mark.parametrize("num_rows", SIZES)
def test_torch_func_and_forward_mode(num_rows):
    total, image, direction = problem(num_rows, "positives")
    slope = central(total, image, direction)
    assert_near((torch.func.grad(total)(image) * direction).sum().detach(), slope)
    assert_near(torch.func.jvp(total, (image,), (direction,))[1].detach(), slope)
    with forward_ad.dual_level():
        assert_near(forward_ad.unpack_dual(total(forward_ad.make_dual(image, direction))).tangent.detach(), slope)
    curvature = central(gradient(total), image, direction)
    assert_near(torch.func.jvp(torch.func.grad(total), (image,), (direction,))[1].detach(), curvature)
    assert_near(torch.autograd.functional.hvp(total, image, direction)[1].detach(), curvature)


@pytest.mark.parametrize("num_rows", SIZES)
def test_vmap_takes_many_batches_at_once(num_rows):
    total, image, direction = problem(num_rows)
    batches = torch.stack([image, unit(direction)])
    assert_near(torch.func.vmap(total)(batches).detach(), torch.stack([total(rows).detach() for rows in batches]))
    each = torch.stack([gradient(total)(rows) for rows in batches])
    assert_near(torch.func.vmap(torch.func.grad(total))(batches).detach(), each)
    x = image.clone().requires_grad_()
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)
    (batched,) = torch.autograd.grad(total(x), x, weights, is_grads_batched=True)
    assert_near(batched, weights[:, None, None] * each[0])


def test_the_first_gradient_stays_the_tiled_one(monkeypatch):
    """The plain formula, which holds all similarities, is taken for second derivatives alone."""

    def plain(*inputs, **options):
        raise AssertionError("the plain formula was called")

    monkeypatch.setattr(tiled, "symmetric_info_nce", plain)
    monkeypatch.setattr(tiled, "log_mean_gaussian_kernel", plain)
    total, image, _ = problem(SIZES[1])
    x = image.clone().requires_grad_()
    total(x).backward()
    assert x.grad.isfinite().all()
    with pytest.raises(AssertionError, match="plain formula"):
        torch.autograd.grad(total(x), x, create_graph=True)


@pytest.mark.parametrize("num_rows", SIZES)
def test_cached_embeddings_can_be_differentiated_twice(num_rows):
    """The activations are computed again, and keep their graph."""
    _, image, direction = problem(num_rows)
    loss = GapClosingLoss(temperature=0.3).double()
    inputs = {"image": image, "text": unit(direction)}

    def penalty(weight, size):
        def encode(batch):
            return {name: unit(torch.tanh(rows @ weight)) for name, rows in batch.items()}

        embeddings = encode(inputs) if size is None else cached_embeddings(encode, split_batch(inputs, size))
        (first,) = torch.autograd.grad(loss(embeddings).total, weight, create_graph=True)
        return torch.autograd.grad(first.square().sum(), weight)[0]

    weight = torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert_near(penalty(weight, 100), penalty(weight, None))


def test_a_part_without_its_formula_says_that_it_can_be_differentiated_once():
    """So it is over several ranks, where every rank holds a share of the similarities."""
    _, image, direction = problem(SIZES[1])
    x = image.clone().requires_grad_()
    value = tiled.info_nce_share(x, unit(direction), 5.0, None, None, 0)
    torch.autograd.grad(value, x, retain_graph=True)  # once is fine
    with pytest.raises(RuntimeError, match=r"differentiated once.*gather=False"):
        torch.autograd.grad(value, x, create_graph=True)


def test_half_precision_is_differentiated_twice_in_fp32():
    _, image, direction = problem(SIZES[1])
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        x = image.bfloat16().to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = tiled_symmetric_info_nce(x, unit(direction).bfloat16().to(dtype), 5.0)
            (first,) = torch.autograd.grad(value, x, create_graph=True)
            found.append(torch.autograd.grad(first.float().square().sum(), x)[0].float())
    assert (found[0] - found[1]).norm() < 0.02 * found[1].norm()


COMPILED = """
import torch
from gapless.losses import gap_closing

gap_closing.PLAIN_ON_CPU = 0
rows = torch.nn.functional.normalize(torch.randn(2, 24, 6, dtype=torch.float64), dim=-1).requires_grad_()
compiled = torch.compile(gap_closing.GapClosingLoss().double(), backend="aot_eager")
total = compiled({"image": rows[0], "text": rows[1]}).total
try:
    (first,) = torch.autograd.grad(total, rows, create_graph=True)
    first.square().sum().backward()
except RuntimeError as error:
    print("refused:", error)
else:
    print("silent")
"""


@pytest.mark.ci
def test_torch_compile_refuses_a_second_derivative():
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused:"), done.stdout
    assert "double backward" in done.stdout
