"""The settings of losses as options: those of the methods that the words or a file name, and what was changed."""

from pathlib import Path

import pytest

from gapless.cli.loss_options import changed_settings, value_of
from gapless.cli.main import VERBS
from gapless.cli.options import parse
from gapless.core.errors import UsageError


def test_the_method_is_the_last_one_named(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("method: clip\n")
    assert value_of("method", ["phantom-small"], "gapless") == "gapless"
    assert value_of("method", ["x", "--method", "clip-fixed", "--seed", "1"], "gapless") == "clip-fixed"
    assert value_of("method", ["--config", str(file)], "gapless") == "clip"
    assert value_of("method", [f"--config={file}", "--method=align-only"], "gapless") == "align-only"
    assert value_of("method", ["--config", str(tmp_path / "none.yaml")], "gapless") == "gapless"
    file.write_text("method: {class_path: os.system}\n")
    assert value_of("method", ["--config", str(file)], "gapless") == "gapless"


def test_a_comparison_changes_what_was_given_and_nothing_else() -> None:
    words = ["--data", "d", "--out", "o", "--methods", "clip,clip-fixed,gapless"]
    methods = words[-1].split(",")
    plain = parse("compare", VERBS["compare"], words)
    assert plain.loss.temperature == 0.07
    assert changed_settings(methods, vars(plain.loss)) == {}
    given = parse("compare", VERBS["compare"], [*words, "--loss.temperature=0.2", "--loss.mask_duplicates=true"])
    assert changed_settings(methods, vars(given.loss)) == {"temperature": 0.2, "mask_duplicates": True}


def test_a_file_names_the_method_whose_settings_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("method: clip\nloss:\n  temperature: 0.5\n")
    words = ["phantom-small", "--data", "d", "--out", "o", "--config", str(file)]
    args = parse("train", VERBS["train"], words)
    assert (args.loss.temperature, args.loss.alignment_weight) == (0.5, 0.0)
    with pytest.raises(UsageError, match="unknown method 'clipp'; known: align-clip"):
        parse("train", VERBS["train"], [*words, "--method", "clipp"])
