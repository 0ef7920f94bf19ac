"""A loss says of its parameters which take no weight decay and which another learning rate; a resume keeps both."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from fakes import tiny_modalities
from safetensors.torch import load_file
from torch import Tensor, nn

from gapless.losses.base import METHODS, Method, ParameterRule, parameter_rules
from gapless.losses.gap_closing import GapLossTerms
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.training.checkpoint import checkpoints_of
from gapless.training.recipes import Recipe
from gapless.training.run import Run, train_run
from gapless.training.trainer import AlignerTrainer

STEPS = 6
RATE = 0.01


@dataclass(frozen=True)
class TiltSettings:
    start: float = 2.0


class Tilted(nn.Module):
    """A loss with four parameters that the rows do not move: what changes them is the optimizer alone."""

    parameter_rules: ClassVar[Mapping[str, ParameterRule]] = {
        "free": ParameterRule(),
        "slow": ParameterRule(True, 0.1),
        "still": ParameterRule(False, 0.0),
    }
    seen: ClassVar[list[tuple[int, int]]] = []

    def __init__(self, settings: TiltSettings, anchor: str) -> None:
        super().__init__()
        for name in ("plain", "free", "slow", "still"):
            setattr(self, name, nn.Parameter(torch.tensor(settings.start)))

    def begin_step(self, seed: int, step: int) -> None:
        self.seen.append((seed, step))

    def forward(self, embeddings: Mapping[str, Tensor], *, positives: Tensor | None = None) -> GapLossTerms:
        pull = (embeddings["image"] - embeddings["text"]).square().mean()
        total = pull + self.slow + self.still + 0.0 * (self.plain + self.free)
        return GapLossTerms(total, pull, pull, pull)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_phantom(tmp_path_factory.mktemp("d") / "p", num_pairs=24, num_validation=0, num_test=8, image_size=16)


@pytest.fixture(autouse=True)
def tilted(monkeypatch: pytest.MonkeyPatch) -> None:
    METHODS.names()
    monkeypatch.setitem(METHODS._things, "tilted", Method("tilted", "", TiltSettings(), Tilted))
    monkeypatch.setattr(Tilted, "seen", [])


def run_of(phantom: Manifest, **training: Any) -> Run:
    own = {"max_steps": STEPS, "per_device_train_batch_size": 8, "use_cpu": True, "learning_rate": RATE}
    own |= {
        "weight_decay": 0.5,
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "cosine",
        "save_steps": 3,
        "save_strategy": "steps",
        **training,
    }
    recipe = Recipe(tiny_modalities(), embedding_dim=8, vocab_size=200, training=own, loss=TiltSettings())
    return Run("tiny", "tilted", 5, recipe, phantom.fingerprint)


def parameters_in(checkpoint: Path) -> dict[str, float]:
    weights = load_file(checkpoint / "model.safetensors")
    return {name.removeprefix("loss."): float(w) for name, w in weights.items() if name.startswith("loss.")}


def rates() -> list[float]:
    """The cosine without warm-up, by hand."""
    steps = torch.arange(STEPS, dtype=torch.float64)
    return (RATE * 0.5 * (1 + torch.cos(torch.pi * steps / STEPS))).tolist()


def test_decay_and_learning_rate_are_as_the_loss_says_and_a_resume_repeats_them(
    phantom: Manifest, tmp_path: Path
) -> None:
    train_run(run_of(phantom), phantom, tmp_path / "whole")
    trained = parameters_in(tmp_path / "whole" / "model")
    decayed, slow = 2.0, 2.0
    for rate in rates():
        decayed *= 1 - 0.5 * rate  # AdamW without a gradient
        slow = slow * (1 - 0.5 * 0.1 * rate) - 0.1 * rate  # a constant gradient is a step of one learning rate
    assert trained["plain"] == pytest.approx(decayed, rel=1e-6)
    assert trained["slow"] == pytest.approx(slow, rel=1e-6)
    assert trained["free"] == trained["still"] == 2.0
    assert trained["plain"] < 1.99  # the control: a parameter without a rule does decay
    assert Tilted.seen == [(5, step) for step in range(STEPS)]

    checkpoints = {one.name: one for one in checkpoints_of(tmp_path / "whole" / "checkpoints")}
    resumed = tmp_path / "resumed"
    (tmp_path / "whole").rename(resumed)
    shutil.rmtree(resumed / "checkpoints" / f"checkpoint-{STEPS}")
    shutil.rmtree(resumed / "model")
    assert set(checkpoints) == {"checkpoint-3", f"checkpoint-{STEPS}"}
    train_run(run_of(phantom), phantom, resumed, resume=True)
    assert parameters_in(resumed / "model") == trained
    assert Tilted.seen[STEPS:] == [(5, step) for step in range(3, STEPS)]


def test_a_rule_for_what_is_no_parameter_is_an_error() -> None:
    loss = Tilted(TiltSettings(), "text")
    loss.parameter_rules = {"frree": ParameterRule()}
    with pytest.raises(ValueError, match=r"Tilted\.parameter_rules names 'frree'"):
        parameter_rules(loss)
    with pytest.raises(ValueError, match="learning_rate_factor must be finite"):
        ParameterRule(learning_rate_factor=float("nan"))


def test_the_temperature_of_any_loss_takes_no_weight_decay(phantom: Manifest, tmp_path: Path) -> None:
    run = run_of(phantom, max_steps=1)
    clip = METHODS["clip"].settings
    groups: list[Any] = []
    create = AlignerTrainer.create_optimizer

    def watched(self: AlignerTrainer, model: nn.Module | None = None) -> torch.optim.Optimizer:
        optimizer = create(self, model)
        groups.extend((self.loss.logit_scale, group) for group in optimizer.param_groups)
        return optimizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AlignerTrainer, "create_optimizer", watched)
        train_run(replace(run, method="clip", settings=replace(run.settings, loss=clip)), phantom, tmp_path / "run")
    assert len(groups) == 2  # no group of its own: nothing of a run of before changes
    assert [g["weight_decay"] for scale, g in groups if any(p is scale for p in g["params"])] == [0.0]
