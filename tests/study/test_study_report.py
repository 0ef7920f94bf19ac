"""The report: one file, nothing from outside, every user string escaped, and honest about what is missing."""

import re
from pathlib import Path
from typing import Any

import pytest
from fake_comparison import write_comparison, write_run
from page_reader import Page

from gapless.core.errors import UsageError
from gapless.study.reliability import reliability_notes
from gapless.study.report import write_report


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("studies") / "fake"
    path.mkdir()
    write_comparison(path)
    return path


@pytest.fixture(scope="module")
def report(comparison: Path) -> str:
    out = comparison.parent / "report.html"
    assert write_report([comparison], out, figures=comparison.parent / "figures") == [
        out,
        comparison.parent / "figures",
    ]
    return out.read_text(encoding="utf-8")


def test_the_page_holds_no_address_outside_itself(report: str) -> None:
    page = Page(report)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"https?:|//[a-z]+\.", re.sub(r"base64,[A-Za-z0-9+/=]+", "", report))
    assert not page.tags & {"script", "iframe", "object", "embed", "link", "base", "form"}
    assert "default-src 'none'" in report
    assert "@import" not in report
    assert "url(" not in re.sub(r"url\(#\w+\)", "", report)


def test_the_page_tells_what_the_paper_needs(report: str) -> None:
    for heading in ("The table", "Latent space", "True and false pairs", "Over training", "Against clip"):
        assert f"<h2>{heading}</h2>" in report
    for heading in ("How many comparisons were made", "The methods and their sources", "What did not work"):
        assert f"<h2>{heading}</h2>" in report
    assert "<h2>How to repeat it</h2>" in report
    for part in ("before training", "0123456789abcdef", "not for diagnosis", r"\begin{table*}", "random labels"):
        assert part in report
    assert report.count("<svg") == 3 + 3 + 8 + 3
    for kind in ("svg", "pdf", "png"):
        assert f'download="latent.{kind}" href="data:' in report


def test_figures_and_tables_are_written_beside(report: str, comparison: Path) -> None:
    names = {path.name for path in (comparison.parent / "figures").iterdir()}
    pictures = {
        f"{name}.{kind}" for name in ("latent", "cosines", "curves", "differences") for kind in ("svg", "pdf", "png")
    }
    assert names == pictures | {"table.tex", "table.md", "effect.png"}
    with pytest.raises(UsageError, match="in use"):
        write_report([comparison], comparison.parent / "again.html", figures=comparison.parent / "figures")
    assert not (comparison.parent / "again.html").exists()


def test_without_data_no_case_is_shown(report: str) -> None:
    assert "Examples of cases" not in report


def test_the_same_results_give_the_same_bytes(report: str, comparison: Path, tmp_path: Path) -> None:
    write_report([comparison], tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == report


def test_user_strings_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>\"&"
    table = {evil: {"gap/centroid_distance": {"mean": 0.1, "sd": 0.0}, evil: {"mean": 1.0, "sd": None}}}
    data = {"source": evil, "rows": {evil: 3}, "fingerprint": evil}
    (tmp_path / "study").mkdir()
    write_comparison(tmp_path / "study", 1, methods=[evil], table=table, runs={}, data=data, recipe=evil, baseline=evil)
    write_report([tmp_path / "study"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "script" not in Page(page).tags
    assert "&lt;script&gt;" in page
    assert evil not in page, "the control: unescaped it would stand there as it is"


def test_runs_and_measurements_without_pictures_still_make_a_report(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "clip", 0)
    for name in ("latent.safetensors", "latent_untrained.safetensors", "metrics.jsonl"):
        (tmp_path / "run" / name).unlink()
    (tmp_path / "measure.json").write_text('{"figures": {"gap/margin": {"value": 0.5, "low": 0.4, "high": 0.6}}}')
    write_report([tmp_path / "run", tmp_path / "measure.json"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    Page(page)
    assert "<svg" not in page
    assert "0.5000 [0.4000, 0.6000]" in page


def test_several_studies_share_a_page(tmp_path: Path) -> None:
    (tmp_path / "first study").mkdir()
    write_comparison(tmp_path / "first study", 1, runs={}, differences={})
    write_run(tmp_path / "run", "gapless", 1)
    (tmp_path / "run/latent.safetensors").unlink()
    paths = [tmp_path / "first study", tmp_path / "run"]
    write_report(paths, tmp_path / "report.html", figures=tmp_path / "figures")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count('<section class="study">') == 2
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"first-study-table.tex", "run-table.tex", "run-curves.pdf"} <= names


def notes_of(**changes: Any) -> dict[str, tuple[str, str]]:
    whole = {"methods": ["clip"], "table": {"clip": {}}, "seeds": [0, 1, 2], "n": 10, "gallery_size": 10} | changes
    return {note.topic: (note.state, note.text) for note in reliability_notes(whole)}


def test_leakage_is_a_warning_and_silence_is_not_an_all_clear() -> None:
    assert notes_of()["Leakage"][0] == "unknown"
    assert notes_of(data={"leakage": {"test_groups_in_train_share": 0.0}})["Leakage"][0] == "good"
    state, text = notes_of(data={"leakage": {"test_groups_in_train_share": 0.25}})["Leakage"]
    assert state == "warn"
    assert "25.0% of the test groups" in text


def test_few_seeds_and_unknown_galleries_are_told() -> None:
    assert notes_of()["Seeds"][0] == "good"
    assert notes_of(seeds=[0])["Seeds"] == ("warn", "Only 1 seed: a difference is claimed from 3 seeds on.")
    assert notes_of(seeds=[])["Seeds"][0] == "unknown"
    assert notes_of(gallery_size=None)["Gallery"][0] == "unknown"
    assert notes_of()["Intervals"][0] == "unknown"
    assert notes_of(differences={"gapless": {"x": {}}})["Intervals"][0] == "good"
    assert notes_of(differ=["n"])["Rows"][0] == "warn"
