"""The names of modalities in result files: kept in order, and read back where one looks like a direction."""

import json

import numpy as np
import pytest

from gapless.core.errors import DataRefused
from gapless.metrics.measure import measure
from gapless.study.measured import measure_embeddings
from gapless.study.pair_blocks import results_to_terminal
from gapless.study.pair_tables import direction_title, pair_matrix, pair_tables
from gapless.study.results import read_studies
from gapless.study.table import modalities_of, paper_table

ODD = ["map_to_left", "ecg", "report"]


def rows_of(names, num_rows=12):
    random = np.random.default_rng(0)
    shared = random.normal(size=(num_rows, 5))
    return {name: (shared + 0.5 * random.normal(size=(num_rows, 5))).astype(np.float32) for name in names}


def written(names, folder, **options):
    """The directory that `gapless measure` writes of arrays of these names, and its results."""
    files = {}
    for name, rows in rows_of(names).items():
        files[name] = folder / f"{name}.npy"
        np.save(files[name], rows)
    measure_embeddings(files, out=folder / "out", num_bootstrap=0, **options)
    return folder / "out", json.loads((folder / "out" / "results.json").read_text())


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return written(ODD, tmp_path_factory.mktemp("odd"), joint=["map_to_left+ecg->report"])


def test_results_name_the_modalities_in_their_order(odd):
    assert odd[1]["modalities"] == ODD


def test_results_of_image_and_text_have_the_keys_that_they_had(tmp_path):
    _, results = written(["image", "text"], tmp_path)
    assert set(results) == {"n", "gallery_size", "figures", "split", "seed", "versions", "data", "verdict"}


def test_a_name_with_to_in_it_is_one_modality_in_every_table(odd):
    comparison = read_studies([odd[0]])[0].comparison
    titles = [title.partition(":")[0] for title, _ in pair_tables(comparison)]
    assert titles == ["map_to_left and ecg", "map_to_left and report", "ecg and report", "map_to_left+ecg → report"]
    assert all(any("retrieval" in column.key for column in table.columns) for _, table in pair_tables(comparison))
    assert list(pair_matrix(comparison, comparison["methods"][0])) == ODD
    blocks = results_to_terminal(odd[1]).split("\n\n")
    assert [block.partition(":")[0] for block in blocks[1:]] == titles


def test_a_file_without_the_names_gives_the_same_modalities(odd):
    older = {key: value for key, value in odd[1].items() if key != "modalities"}
    assert sorted(modalities_of({"table": {"a": older["figures"]}})) == sorted(ODD)


def test_two_modalities_of_which_one_has_to_in_its_name_have_both_directions_in_the_table(tmp_path):
    out, _ = written(["map_to_left", "ecg"], tmp_path)
    table = paper_table(read_studies([out])[0].comparison)
    cells = {column.key: cell.mean for column, cell in zip(table.columns, next(iter(table.rows.values())), strict=True)}
    assert {"retrieval/map_to_left_to_ecg/R@1", "retrieval/ecg_to_map_to_left/R@1"} <= set(cells)
    assert "–" not in [mean for key, mean in cells.items() if key.startswith("retrieval/")]


def test_the_direction_of_a_joint_query_is_split_after_its_parts():
    entry = {"weights": {"ecg": 1.0, "map_to_left": 2.0}}  # a file sorts the parts
    assert direction_title("map_to_left+ecg_to_a_to_b", entry) == "map_to_left+ecg → a_to_b"


@pytest.mark.parametrize("name", ["a/b", "a+b", "a@complete", ""])
def test_a_name_that_keys_cannot_hold_is_refused(name):
    with pytest.raises(ValueError, match="rename it"):
        measure(rows_of([name, "text"]))


@pytest.mark.parametrize(
    ("names", "key"),
    [(["a", "b-c", "a-b", "c"], "a-b-c"), (["a", "b_to_c", "a_to_b", "c"], "a_to_b_to_c")],
)
def test_names_whose_pairs_would_share_a_key_are_refused(names, key):
    with pytest.raises(ValueError, match=f"the same key of figures as .*{key}; rename one of them"):
        measure(rows_of(names))


def test_a_file_of_such_names_is_refused_by_the_command_in_one_sentence(tmp_path):
    np.savez(tmp_path / "rows.npz", **rows_of(["a+b", "text"]))
    with pytest.raises(DataRefused, match=r"rows\.npz: the name of the modality 'a\+b'"):
        measure_embeddings(tmp_path / "rows.npz", num_bootstrap=0)


def test_a_map_of_rows_that_lack_modalities_counts_rows(tmp_path):
    rows = rows_of(ODD)
    rows["ecg"][:4] = np.nan
    files = {}
    for name, matrix in rows.items():
        files[name] = tmp_path / f"{name}.npy"
        np.save(files[name], matrix)
    measure_embeddings(files, num_bootstrap=0, missing="keep", html=tmp_path / "map.html")
    assert "all 12 rows drawn" in (tmp_path / "map.html").read_text(encoding="utf-8")
