"""The table of methods: what a loss of any kind must be, how its settings change, and how a model's file names it."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from gapless.core.errors import UsageError
from gapless.losses import base
from gapless.losses.base import METHODS, Method, changes_of, masks_duplicates, method_of, named_terms
from gapless.losses.gap_closing import GapClosingLoss
from gapless.losses.gap_closing_methods import GapClosingSettings
from gapless.losses.saved import MissingLoss, build_loss, describe_loss

NAMES = ("clip", "clip-fixed", "align-only", "uniform-only", "gapless-published", "gapless")


@dataclass(frozen=True)
class PullSettings:
    strength: float = 2.0


class PullTerms(NamedTuple):
    total: Tensor
    pull: Tensor


class Pull(nn.Module):
    """A loss with nothing but what the protocol asks for."""

    def __init__(self, settings: PullSettings, anchor: str) -> None:
        super().__init__()
        self.strength = settings.strength

    def forward(self, embeddings: dict[str, Tensor], *, positives: Tensor | None = None) -> PullTerms:
        first, second = embeddings.values()
        pull = (first - second).square().mean()
        return PullTerms(self.strength * pull, pull)


def unit(seed: int) -> Tensor:
    rows = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.normalize(rows, dim=1)


def test_the_six_methods_stand_in_the_table_in_their_order() -> None:
    assert METHODS.names()[: len(NAMES)] == NAMES
    assert all(METHODS[name].name == name and METHODS[name].summary and METHODS[name].source for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_described_loss_is_built_again(name: str) -> None:
    settings = replace(METHODS[name].settings, temperature=0.2)
    again = build_loss(describe_loss(METHODS[name], settings, "image"))
    assert isinstance(again, GapClosingLoss)
    embeddings = {"image": unit(0), "text": unit(1)}
    expected = METHODS[name].build(settings, "image")
    for progress in (0.0, 0.5, 1.0):
        for loss in (again, expected):
            base.set_progress(loss, progress)
        assert again(embeddings).total.item() == expected(embeddings).total.item()


def test_a_configuration_without_a_name_is_that_of_an_earlier_version() -> None:
    loss = build_loss({"anchor": "text", "temperature": 0.1, "alignment_weight": [[0.0, 0.0], [1.0, 2.0]]})
    loss.set_progress(0.5)
    terms = loss({"image": unit(0), "text": unit(1)})
    assert terms.total.item() == pytest.approx((terms.contrastive + terms.alignment + terms.uniformity).item())
    assert loss.logit_scale.exp().item() == pytest.approx(10, rel=1e-5)


def test_a_loss_of_a_package_that_is_not_here_says_which() -> None:
    loss = build_loss({"method": "far", "package": "elsewhere", "anchor": "text", "settings": {"a": 1}})
    assert isinstance(loss, MissingLoss)
    with pytest.raises(UsageError, match="'far' of the package 'elsewhere', which is not installed"):
        loss({})


def test_settings_find_their_method() -> None:
    assert method_of(METHODS["clip"].settings).name == "clip"
    assert method_of(METHODS["gapless"].frozen_settings).name == "gapless"
    assert method_of(GapClosingSettings(temperature=0.5), "align-only").name == "align-only"
    assert (
        method_of(GapClosingSettings(temperature=0.5), "a label of one's own").settings.__class__ is GapClosingSettings
    )
    with pytest.raises(UsageError, match="PullSettings"):
        method_of(PullSettings())


def test_a_method_takes_the_changes_that_are_its_own() -> None:
    changes = {"strength": 3.0, "temperature": 0.2, "alignment_weight": 9.0}
    pull = Method("pull", "pairs", PullSettings(), Pull)
    assert pull.changed(changes) == PullSettings(3.0)
    assert METHODS["clip"].changed(changes) == replace(METHODS["clip"].settings, temperature=0.2)
    assert METHODS["clip-fixed"].changed(changes) == METHODS["clip-fixed"].settings
    assert changes_of(GapClosingSettings(temperature=0.2)) == {"temperature": 0.2}
    assert not masks_duplicates(PullSettings())
    assert masks_duplicates(GapClosingSettings(mask_duplicates=True))
    with pytest.raises(ValueError, match="an instance of a dataclass"):
        Method("pull", "pairs", PullSettings, Pull)


def test_what_a_loss_need_not_have_is_not_asked_of_it() -> None:
    loss = Pull(PullSettings(), "text")
    base.set_progress(loss, 0.5)
    base.after_step(loss)
    assert base.logit_scale_of(loss) is None
    terms = named_terms(loss({"image": unit(0), "text": unit(1)}))
    assert list(terms) == ["total", "pull"]
    with pytest.raises(TypeError, match="a NamedTuple of terms with a total, got Tensor"):
        named_terms(terms["total"])


def test_a_loss_that_has_them_is_moved_and_clamped() -> None:
    loss = METHODS["gapless"].build(METHODS["gapless"].settings, "text")
    base.set_progress(loss, 0.65)
    embeddings = {"image": unit(0), "text": unit(1)}
    terms = loss(embeddings)
    expected = terms.contrastive + 4 * terms.alignment + 0.5 * terms.uniformity
    assert terms.total.item() == pytest.approx(expected.item(), rel=1e-6)
    with torch.no_grad():
        loss.logit_scale.fill_(9.0)
    base.after_step(loss)
    assert base.logit_scale_of(loss) == pytest.approx(100, rel=1e-5)
