"""A run whose config.yaml is older than a setting is continued; a value that is asked otherwise is refused."""

from pathlib import Path

import pytest
import yaml

from gapless.core.errors import UsageError
from gapless.training.recipes import get_recipe
from gapless.training.run import Run, resumed


def test_settings_that_came_later_are_no_difference(tmp_path: Path) -> None:
    run = Run("phantom-small", "gapless", 0, get_recipe("phantom-small"), "abc")
    described = run.to_dict()
    for name in ("pairs", "modality_weights", "alignment_modality_weights"):
        del described["settings"]["loss"][name]
    del described["settings"]["modality_dropout"]
    assert described["settings"]["anchor"] is None
    described["settings"]["anchor"] = "text"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(described))
    assert resumed(run, tmp_path) == (None, {})
    for key, value in (("modality_dropout", {"image": 0.5}), ("vocab_size", 7), ("anchor", "image")):
        described["settings"][key] = value
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(described))
        with pytest.raises(UsageError, match=f"settings.{key}"):
            resumed(run, tmp_path)
        del described["settings"][key]
        described["settings"] |= {"vocab_size": run.settings.vocab_size, "anchor": None}
