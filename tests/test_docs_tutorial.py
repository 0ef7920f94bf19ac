"""The tutorial from its first line to its last, in one empty directory and one process, offline."""

import json

import pytest
from doc_blocks import ROOT, blocks_of, run_block

TUTORIAL = [block for block in blocks_of(ROOT / "docs" / "tutorial.md") if block.runs]


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The directory after the whole tutorial."""
    pytest.importorskip("lancedb", reason="needs the extra 'search'")
    place = tmp_path_factory.mktemp("tutorial")
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for block in TUTORIAL:
            run_block(block, names)
    return place


@pytest.mark.ci
def test_the_tutorial_runs_from_a_folder_to_a_searched_and_measured_collection(walked):
    manifest = json.loads((walked / "data" / "manifest.json").read_text())
    assert manifest["counts"]["read"] == manifest["counts"]["kept"] == 400
    figures = json.loads((walked / "run" / "results.json").read_text())["figures"]
    assert figures["retrieval/mean/R@10"] > 10 / 40, "chance"
    assert (walked / "closed" / "results.json").exists()
    assert (walked / "collection").is_dir()


def test_most_of_the_tutorial_is_marked_to_be_run():
    blocks = blocks_of(ROOT / "docs" / "tutorial.md")
    left_out = [block.code for block in blocks if not block.runs]
    assert left_out == ["gapless serve collection\n"]
    assert len(TUTORIAL) >= 6
