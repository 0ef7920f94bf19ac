"""Tables of pairs, the pair matrix and the presence table of three modalities of which rows lack some."""

import json

import numpy as np
import pytest
import torch

from gapless.metrics.measure import measure
from gapless.study.pair_blocks import results_to_terminal
from gapless.study.pair_tables import pair_matrix, pair_tables, pairs_of_modalities
from gapless.study.presence_table import presence_table
from gapless.study.reliability import reliability_notes
from gapless.study.renderings import pairs_to_terminal, to_terminal
from gapless.study.table import paper_table

NAMES = ("image", "text", "ecg")
ABSENT = {"image": range(0, 6), "text": range(4, 12), "ecg": range(20, 25)}
ROWS = 40


def _measured(joint=(), absent=ABSENT, num_bootstrap=0):
    random = np.random.default_rng(0)
    shared = random.normal(size=(ROWS, 6))
    rows = {name: shared + 0.6 * random.normal(size=(ROWS, 6)) + 0.5 for name in NAMES}
    present = {name: torch.tensor([row not in absent[name] for row in range(ROWS)]) for name in absent}
    figures = measure(rows, present=present, joint=joint, include=("gap", "retrieval", "further"))
    return figures


@pytest.fixture(scope="module")
def comparison():
    figures = _measured(joint=["image+ecg->text"])
    kept = {key: figures.pop(key) for key in ("n", "gallery_size", "present", "pairs", "complete", "joint")}
    table = {key: {"mean": value, "sd": None} for key, value in figures.items()}
    return {**kept, "methods": ["gapless"], "anchor": "ecg", "table": {"gapless": table}, "seeds": [0]}


def test_every_pair_has_its_own_rows_those_of_the_anchor_first(comparison):
    rows = set(range(ROWS))
    has = {name: rows - set(ABSENT[name]) for name in NAMES}
    pairs = pairs_of_modalities(comparison)
    assert [pair.name for pair in pairs] == ["image-ecg", "text-ecg", "image-text"]
    for pair in pairs:
        common = len(has[pair.first] & has[pair.second])
        assert (pair.n, pair.gallery_size) == (common, common)
        assert pair.sizes == f"{common} rows, gallery {common}"


def test_a_table_shows_the_figures_of_its_pair_and_those_of_complete_rows_beside(comparison):
    (title, table), *_ = pair_tables(comparison)
    assert title.startswith("image and ecg: ")
    figures = comparison["table"]["gapless"]
    shown = {column.key: cell.mean for column, cell in zip(table.columns, table.rows["gapless"], strict=True)}
    for key in ("gap/true_pair_cosine/image-ecg", "gap/true_pair_cosine/image-ecg@complete"):
        assert shown[key] == f"{figures[key]['mean']:.3f}"
    for key in ("retrieval/ecg_to_image/R@10", "retrieval/image_to_ecg/R@10@complete"):
        assert shown[key] == f"{100 * figures[key]['mean']:.1f}"
    complete = comparison["complete"]["n"]
    assert [name for name, _ in table.groups()][3] == f"complete rows ({complete})"


def test_the_tables_are_those_of_all_pairs_and_of_the_joint_query(comparison):
    titles = [title.partition(":")[0] for title, _ in pair_tables(comparison)]
    assert titles == ["image and ecg", "text and ecg", "image and text", "image+ecg → text"]
    keys = {column.key for column in pair_tables(comparison)[-1][1].columns}
    assert {"retrieval/image+ecg_to_text/R@10", "retrieval/image+ecg_to_text/R@10@complete"} <= keys


def test_of_two_modalities_there_is_no_table_of_a_pair(comparison):
    figures = {"retrieval/image_to_text/R@10": {"mean": 0.5, "sd": None}}
    assert pair_tables({"table": {"clip": figures}, "methods": ["clip"], "n": 9}) == []
    assert pair_matrix({"table": {"clip": figures}, "methods": ["clip"], "n": 9}, "clip") == {}


def test_the_main_table_of_several_modalities_has_the_mean_recall_alone(comparison):
    columns = [column.key for column in paper_table(comparison).columns if column.key.startswith("retrieval/")]
    assert columns == [f"retrieval/mean/R@{k}" for k in (1, 5, 10)]


def test_the_tables_fit_into_100_columns(comparison):
    text = pairs_to_terminal(pair_tables(comparison), 100) + to_terminal(paper_table(comparison), 100)
    assert max(map(len, text.splitlines())) <= 100


def test_a_file_that_lists_modalities_by_name_gives_the_same_figures(comparison):
    read = json.loads(json.dumps(comparison, sort_keys=True))
    assert list(read["present"]) == sorted(NAMES) != list(NAMES)
    given = {title: table.rows for title, table in pair_tables(comparison)}
    assert {title: table.rows for title, table in pair_tables(read)} == given
    assert pair_matrix(read, "gapless")["text"][0] == pair_matrix(comparison, "gapless")["text"][2]


def test_the_galleries_of_the_pairs_are_said_in_words(comparison):
    sizes = [one["gallery_size"] for one in comparison["pairs"].values()]
    note = reliability_notes(comparison)[0]
    assert (note.state, note.topic) == ("warn", "Gallery")
    assert f"{min(sizes)} to {max(sizes)} candidates" in note.text


def test_the_matrix_has_every_direction_with_the_rows_of_its_pair(comparison):
    matrix = pair_matrix(comparison, "gapless")
    figures = comparison["table"]["gapless"]
    assert list(matrix) == list(NAMES)
    for a, cells in matrix.items():
        for b, cell in zip(matrix, cells, strict=True):
            if a == b:
                assert cell.is_diagonal
                assert cell.n == str(ROWS - len(ABSENT[a]))
            else:
                assert cell.share == figures[f"retrieval/{a}_to_{b}/R@10"]["mean"]
                assert cell.recall == f"{100 * cell.share:.1f}"
    assert matrix["image"][1].gap == matrix["text"][0].gap


def test_a_pair_without_common_rows_is_named_and_has_no_columns():
    absent = {"image": range(0, 20), "text": range(20, 40), "ecg": ()}
    figures = _measured(absent=absent)
    kept = {key: figures.pop(key) for key in ("n", "gallery_size", "present", "pairs", "complete")}
    table = {key: {"mean": value, "sd": None} for key, value in figures.items()}
    comparison = {**kept, "methods": ["a"], "table": {"a": table}}
    title, shown = pair_tables(comparison)[0]
    assert title == "image and text: left out, fewer than 2 rows have both (0)"
    assert shown.columns == []
    assert pair_matrix(comparison, "a")["image"][1].recall == "–"
    assert "left out" in pairs_to_terminal(pair_tables(comparison))


def test_the_terminal_shows_the_means_first_and_every_figure_once(comparison):
    figures = {key: one["mean"] for key, one in comparison["table"]["gapless"].items()}
    text = results_to_terminal({**comparison, "figures": figures})
    blocks = text.split("\n\n")
    assert blocks[0].startswith("means over 3 pairs")
    assert [block.partition(":")[0] for block in blocks[1:]] == [
        "image and ecg",
        "text and ecg",
        "image and text",
        "image+ecg → text",
    ]
    lines = [line for block in blocks for line in block.splitlines()[1:]]
    assert len(lines) == len({key.removesuffix("@complete") for key in figures})
    assert max(map(len, text.splitlines())) <= 100
    cosine = next(line for line in blocks[1].splitlines() if "gap/true_pair_cosine" in line)
    assert f"{figures['gap/true_pair_cosine/image-ecg']:.4f}" in cosine
    assert f"{figures['gap/true_pair_cosine/image-ecg@complete']:.4f}" in cosine


def test_two_modalities_are_printed_as_before():
    figures = {"retrieval/image_to_text/R@10": 0.5, "gap/margin": 0.1}
    text = results_to_terminal({"figures": figures, "n": 5, "gallery_size": 5})
    assert text.splitlines()[0].startswith("gap/margin")


def test_presence_counts_by_split_and_by_pattern():
    presence = {
        "rows": 10,
        "present": {"image": 8, "text": 5},
        "patterns": {"text": 2, "image": 5, "image + text": 3},
        "splits": {
            "test": {"rows": 4, "present": {"image": 2, "text": 2}},
            "train": {"rows": 6, "present": {"image": 6, "text": 3}},
        },
        "notes": ["text is present in 5 of 10 rows"],
    }
    table = presence_table({"presence": presence})
    assert table.splits == ["train", "test", "all"]
    assert table.modalities[0] == ("image", [(6, 1.0), (2, 0.5), (8, 0.8)])
    assert table.patterns == [([True, False], 5), ([True, True], 3), ([False, True], 2)]
    assert table.notes == presence["notes"]


def test_complete_rows_have_no_table_of_presence():
    assert presence_table({"n": 10, "table": {}}) is None
