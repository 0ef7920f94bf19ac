"""A reader from a package outside the tree: a verb of the real command, with its own options."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from data_samples import noise_image
from outside_package import OutsideSite, outside_site

pytestmark = pytest.mark.ci  # a package from outside, installed and used in processes of its own

__all__ = ["outside_site"]


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Three images, a comment, and a line without a tab."""
    for number in range(3):
        noise_image(number).save(tmp_path / f"{number}.png")
    lines = ["0.png\tchest", "% 7.png\tno row", "1.png\thand", "torn", "2.png\tknee"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return tmp_path


def test_a_reader_from_outside_is_a_verb_with_its_own_options(outside_site: OutsideSite, listed: Path) -> None:
    words = ["data", "outside-list", "list.txt", "--out", "m", "--comment", "%", "--max-bad", "0.3", "--json"]
    done = outside_site.gapless(*words, cwd=listed)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"] == {"read": 4, "kept": 3, "skipped": 1}
    assert pq.read_table(listed / "m/manifest.parquet")["captions"].to_pylist() == [["chest"], ["hand"], ["knee"]]


def test_its_options_are_checked_and_its_bad_rows_refused(outside_site: OutsideSite, listed: Path) -> None:
    refused = outside_site.gapless("data", "outside-list", "list.txt", "--out", "m", "--comment", "%", cwd=listed)
    assert refused.returncode == 3
    assert "1 malformed line" in refused.stderr
    mistyped = outside_site.gapless("data", "outside-list", "list.txt", "--out", "m", "--coment", "%", cwd=listed)
    assert mistyped.returncode == 2
    assert "did you mean --comment?" in mistyped.stderr


def test_help_shows_it(outside_site: OutsideSite) -> None:
    done = outside_site.python("-m", "gapless", "data", "--help")  # in a process of its own, as a shell starts it
    assert "data outside-list  lines of path<TAB>caption" in done.stdout
    shown = outside_site.gapless("data", "outside-list", "--help").stdout
    assert "lines that begin with this are left out. (default: #)" in " ".join(shown.split())
