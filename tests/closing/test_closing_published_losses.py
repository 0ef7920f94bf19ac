"""The published losses through the real trainer: heads on frozen rows train, are saved, and are read again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gapless.closing.close import close_gap
from gapless.closing.trained_heads import AdapterSettings
from gapless.core.errors import UsageError
from gapless.core.files import read_json
from gapless.losses.base import METHODS
from gapless.models.aligner import GaplessModel

PAIRWISE = ("cua", "cuaxu", "cyclip", "cs-aligner", "align-clip")
WHOLE = ("gram", "triangle", "symile", "pmrl")
NUM_ROWS = 80


def rows(*names: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shared = random.standard_normal((NUM_ROWS, 8))
    return {name: shared + 0.3 * random.standard_normal((NUM_ROWS, 8)) for name in names}


def settings(name: str) -> AdapterSettings:
    return AdapterSettings(loss=METHODS[name].settings, max_steps=3, num_evaluations=1, hidden=8, batch_size=32)


@pytest.mark.parametrize("name", [*PAIRWISE, *WHOLE])
def test_a_method_trains_three_modalities_and_its_model_is_read_again(name: str, tmp_path: Path) -> None:
    close_gap(rows("image", "text", "wave"), settings=settings(name), out=tmp_path / "closed")
    again = GaplessModel.from_pretrained(tmp_path / "closed")
    assert type(again.loss) is METHODS[name].build
    assert again.loss.settings == METHODS[name].settings
    assert read_json(tmp_path / "closed" / "results.json")["loss"] == name
    terms = {
        key for line in (tmp_path / "closed" / "metrics.jsonl").read_text().splitlines() for key in _loss_keys(line)
    }
    assert len(terms) >= 2  # the total, and terms of its own


def _loss_keys(line: str) -> list[str]:
    return [part for part in line.split('"') if part.startswith("loss/")]


@pytest.mark.parametrize("name", WHOLE)
def test_a_method_of_whole_rows_refuses_rows_that_lack_a_modality_in_one_sentence(name: str, tmp_path: Path) -> None:
    present = {"wave": torch.arange(NUM_ROWS).numpy() % 2 == 0}
    with pytest.raises(UsageError, match="takes complete rows only"):
        close_gap(rows("image", "text", "wave"), settings=settings(name), out=tmp_path / "closed", present=present)
    assert not (tmp_path / "closed").exists()


@pytest.mark.parametrize("name", PAIRWISE)
def test_a_method_of_pairs_trains_on_rows_that_lack_a_modality(name: str, tmp_path: Path) -> None:
    present = {"wave": torch.arange(NUM_ROWS).numpy() % 2 == 0}
    close_gap(rows("image", "text", "wave"), settings=settings(name), out=tmp_path / "closed", present=present)
    assert (tmp_path / "closed" / "config.json").exists()


def test_a_number_of_modalities_that_a_method_does_not_take_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="triangle takes exactly 3 modalities, and there are 2 \\(image, text\\)"):
        close_gap(rows("image", "text"), settings=settings("triangle"), out=tmp_path / "closed")
    assert not (tmp_path / "closed").exists()
