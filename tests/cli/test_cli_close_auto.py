"""`gapless close` without a method: auto, its purpose, its table, and options that name a method by themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_server import gapless

from gapless.cli.closing import named_method
from gapless.core.errors import UsageError


@pytest.mark.parametrize(
    ("words", "method"),
    [
        ([], "auto"),
        (["--out", "m", "--image", "cca.npy"], "auto"),
        (["--cca.ridge", "3"], "cca"),
        (["--cca.ridge=3"], "cca"),
        (["--loss", "clip"], "adapter"),
        (["--adapter.loss.alignment_weight=2"], "adapter"),
        (["--method", "procrustes"], "procrustes"),
        (["--auto.seconds", "5", "--for", "retrieval"], "auto"),
    ],
)
def test_an_option_of_a_method_names_it(words: list[str], method: str) -> None:
    assert named_method(words) == method


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("close")
    random = np.random.default_rng(0)
    image = random.standard_normal((120, 8)).astype(np.float32)
    turn = np.linalg.qr(random.standard_normal((8, 8)))[0].astype(np.float32)
    np.save(place / "image.npy", image + 1)
    np.save(place / "text.npy", image @ turn - 1)
    (place / "groups.txt").write_text("".join(f"p{row // 2}\n" for row in range(120)))
    (place / "labels.txt").write_text("".join(f"{'ab'[row % 2]}\n" for row in range(120)))
    return place


SOURCE = ("--image", "image.npy", "--text", "text.npy", "--groups", "groups.txt", "--labels", "labels.txt")


def test_the_table_its_reason_and_the_figures_are_printed(place: Path) -> None:
    options = ("--auto.methods", "[center, procrustes]", "--auto.num_folds", "3", "--auto.num_bootstrap", "40")
    done = gapless("close", *SOURCE, *options, "--for", "retrieval", "--out", "auto", cwd=place)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["as", "center", "procrustes*"]
    assert "V-measure" in lines[0]
    assert "for retrieval: procrustes has the best mean reciprocal rank" in done.stdout
    results = json.loads((place / "auto" / "results.json").read_text())
    assert results["choice"]["purpose"] == "retrieval"
    assert results["figures"]["grouping/v_measure"]["mean"] >= 0
    page = gapless("report", "auto", "--out", "auto.html", cwd=place)
    assert page.returncode == 0, page.stderr
    text = (place / "auto.html").read_text()
    assert "How auto was chosen" in text
    assert "The candidates of auto" in text
    card = gapless("export", "auto", "--to", "hub", "--out", "hub", cwd=place)
    assert card.returncode == 0, card.stderr
    assert "How the method was chosen" in (place / "hub" / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--method", "cca", "--for", "retrieval"), "--for says how auto chooses, and the method is cca"),
        (("--for", "beauty"), "unknown purpose 'beauty'; known: balanced"),
        (("--auto.methods", "[magic]"), "unknown closing method 'magic'"),
        (("--auto.seconds", "-1"), "seconds is a number of at least 0, got -1"),
    ],
)
def test_wrong_words_are_one_sentence(place: Path, words: tuple[str, ...], message: str) -> None:
    done = gapless("close", *SOURCE, *words, "--out", "wrong", cwd=place)
    assert done.returncode == UsageError.exit_code
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (place / "wrong").exists()
    assert not (place / ".wrong.resume").exists()
