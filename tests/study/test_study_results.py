"""Reading results: whole and broken directories, runs beside each other."""

import json
from pathlib import Path

import numpy as np
import pytest
from fake_comparison import write_comparison, write_run
from safetensors.numpy import save_file

from gapless.core.errors import DataRefused, UsageError
from gapless.study.results import read_history, read_latent, read_studies
from gapless.study.table import paper_table


def test_a_comparison_is_read_with_its_runs(tmp_path: Path) -> None:
    written = write_comparison(tmp_path, seeds=2)
    (study,) = read_studies([tmp_path])
    assert study.comparison == written
    assert {method: len(runs) for method, runs in study.runs.items()} == {"clip": 2, "gapless": 2}
    run = study.runs["clip"][0]
    latent, untrained = run.latent(), run.latent_untrained()
    assert latent is not None
    assert untrained is not None
    assert latent.embeddings["image"].shape == (160, 16)
    assert latent.ids[3] == "row-3"
    assert study.runs["clip"][1].latent_untrained() is None


def test_runs_become_one_table_with_a_row_each(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "clip", 0)
    write_run(tmp_path / "b", "clip", 1)
    (study,) = read_studies([tmp_path / "a", tmp_path / "b"])
    assert study.methods == ["clip, seed 0", "clip, seed 1"]
    table = paper_table(study.comparison)
    assert table.rows["clip, seed 0"][0].sd == ""
    assert "gallery 160" in table.notes[0]


def test_rows_measured_differently_are_told_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "clip", 0)
    write_run(tmp_path / "b", "clip", 0)
    results = json.loads((tmp_path / "b/results.json").read_text())
    (tmp_path / "b/results.json").write_text(json.dumps(results | {"gallery_size": 80}))
    (study,) = read_studies([tmp_path / "a", tmp_path / "b"])
    assert study.comparison["differ"] == ["gallery_size"]
    assert "gallery_size" not in study.comparison
    assert any("differ in gallery_size" in note for note in paper_table(study.comparison).notes)
    assert [name.split(" (")[0] for name in study.methods] == ["clip, seed 0"] * 2
    assert len(set(study.methods)) == 2


def test_a_spread_over_k_means_seeds_is_not_shown_as_one_over_runs(tmp_path: Path) -> None:
    figures = {"grouping/v_measure": {"mean": 0.4, "sd": 0.1}, "grouping/random/v_measure": {"mean": 0.02, "sd": 0.01}}
    (tmp_path / "measure.json").write_text(json.dumps({"figures": figures, "n": 9, "gallery_size": 9}))
    (study,) = read_studies([tmp_path])
    table = paper_table(study.comparison)
    place = [column.key for column in table.columns].index("grouping/v_measure")
    assert [row[place].text for row in table.rows.values()] == ["40.0", "2.0"]
    assert study.all_figures(study.methods[0]) == figures


def test_one_json_file_of_figures_is_enough(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"gap/centroid_distance": 0.25}))
    (study,) = read_studies([tmp_path / "x.json"])
    assert next(iter(paper_table(study.comparison).rows.values()))[0].text == "0.250"


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no directory given"):
        read_studies([])
    with pytest.raises(UsageError, match=r"nowhere does not exist"):
        read_studies([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty holds none of compare\.json"):
        read_studies([tmp_path / "empty"])
    (tmp_path / "empty/config.yaml").write_text("")
    with pytest.raises(UsageError, match=r"empty is a run without results\.json"):
        read_studies([tmp_path / "empty"])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/compare.json").write_text('{"methods": [')
    with pytest.raises(DataRefused, match=r"broken/compare\.json is not valid JSON"):
        read_studies([tmp_path / "broken"])
    (tmp_path / "broken/compare.json").write_text("{}")
    with pytest.raises(DataRefused, match="has no methods and no table"):
        read_studies([tmp_path / "broken"])
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(DataRefused, match="holds a list"):
        read_studies([tmp_path / "list.json"])


def test_a_history_may_end_in_half_a_line_but_not_hold_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [record["step"] for record in read_history(path)] == [1, 2]
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(DataRefused, match="line 2"):
        read_history(path)
    assert read_history(tmp_path / "absent.jsonl") == []


def test_a_broken_latent_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latent.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00nonsense")
    with pytest.raises(DataRefused, match="not a readable safetensors file"):
        read_latent(path)
    save_file({"image": np.zeros((3, 2), np.float32), "text": np.zeros((4, 2), np.float32)}, path)
    with pytest.raises(DataRefused, match="different shapes"):
        read_latent(path)
    assert read_latent(tmp_path / "absent.safetensors") is None
