"""The lines at the end of `train`: what was reached, and who prints it."""

from types import SimpleNamespace

import pytest

from gapless.cli import main, training
from gapless.cli.verb import Outcome, Verb


def test_the_figures_of_the_last_evaluation_have_their_names_filled_in(tmp_path):
    figures = {"gap/centroid_distance": 0.5, "retrieval/mean/R@10": 0.25, "n": 20}
    trained = SimpleNamespace(run=tmp_path, validation=figures)
    first, second = training.trained_line(trained, 61.0).splitlines()
    assert first.endswith(f"the model is in {tmp_path / 'model'}")
    assert second == "validation rows: centroid distance 0.500; R@10, mean 0.250"


@pytest.mark.parametrize(("rank", "is_shared", "printed"), [("0", True, "x\n"), ("1", True, ""), ("1", False, "x\n")])
def test_one_process_of_torchrun_prints_what_all_have(monkeypatch, capsys, rank, is_shared, printed):
    verb = Verb("other", "ends at once", "", lambda parser: None, lambda args: Outcome({}, "x", is_shared=is_shared))
    monkeypatch.setitem(main.VERBS._fixed, "end", verb)
    monkeypatch.setenv("RANK", rank)
    assert main.main(["end"]) == 0
    assert capsys.readouterr().out == printed
