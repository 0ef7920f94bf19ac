"""The journey as a user makes it: the command in processes of its own, from data to report; what goes wrong on it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from command_server import gapless, shared_server, succeeded

TINY = [
    "--training.num_train_epochs=2",
    "--training.per_device_train_batch_size=32",
    "--training.use_cpu=true",
    "--embedding_dim=32",
    "--vocab_size=400",
]


def in_a_new_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gapless", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    place = tmp_path_factory.mktemp("journey")
    out = succeeded(gapless("data", "phantom", "--num_pairs", 300, "--image_size", 32, "--out", place / "data"))
    assert "read 300, kept 300, skipped 0" in out
    return place


@pytest.fixture(scope="module")
def comparison(workplace):
    out = workplace / "compare"
    done = gapless(
        *("compare", "--data", workplace / "data", "--methods", "clip,gapless", "--seeds", 2, "--out", out),
        *("--num_bootstrap", 50, "--json", *TINY),
    )
    return out, json.loads(succeeded(done))


def test_help_names_every_verb_and_loads_fast():
    out = succeeded(in_a_new_process("--help"))
    for verb in ("demo", "data table", "train", "evaluate", "compare", "report"):
        assert verb in out
    assert succeeded(in_a_new_process()) == out


def test_a_comparison_is_the_papers_table_over_seeds(comparison):
    out, content = comparison
    assert json.loads((out / "compare.json").read_text()) == content
    for method in ("clip", "gapless"):
        entry = content["table"][method]["gap/centroid_distance"]
        assert entry["sd"] > 0
        for number, run in enumerate(content["runs"][method]):
            results = json.loads((out / run / "results.json").read_text())
            assert results["seed"] == number
            assert results["gallery_size"] == results["n"] == content["data"]["rows"]["test"]
    assert content["data"]["leakage"] == {"test_rows_in_train_share": 0.0}
    assert {"value", "low", "high"} == content["differences"]["gapless"]["retrieval/mean/R@10"].keys()
    header, _, *lines = [line for line in (out / "table.md").read_text().splitlines() if line.startswith("|")]
    assert any("centroid" in cell or "distance" in cell for cell in header.split("|"))
    assert [line.split("|")[1].strip() for line in lines][:2] == ["clip", "gapless"]
    for method, line in zip(("clip", "gapless"), lines, strict=False):
        assert f"{content['table'][method]['gap/centroid_distance']['mean']:.3f}" in line
    assert r"\toprule" in (out / "table.tex").read_text()


def test_both_methods_train_with_equal_budget(comparison):
    out, content = comparison
    budgets = {
        json.dumps(json.loads((out / run / "results.json").read_text())["budget"], sort_keys=True)
        for runs in content["runs"].values()
        for run in runs
    }
    assert len(budgets) == 1


def test_a_finished_comparison_is_kept_and_another_is_refused(workplace, comparison):
    out, _ = comparison
    before = (out / "runs" / "clip-seed0" / "results.json").stat().st_mtime_ns
    same = ("compare", "--data", workplace / "data", "--methods", "clip,gapless", "--out", out, "--num_bootstrap", 50)
    succeeded(gapless(*same, "--seeds", 2, *TINY))
    assert (out / "runs" / "clip-seed0" / "results.json").stat().st_mtime_ns == before
    other = gapless(*same, "--seeds", 2, *TINY, "--embedding_dim=16")
    assert other.returncode == 2
    assert "embedding_dim" in other.stderr


def test_the_report_is_one_file_without_an_address(workplace, comparison):
    out, _ = comparison
    page = workplace / "report.html"
    succeeded(gapless("report", out, "--out", page))
    text = page.read_text()
    assert "gapless" in text
    assert "not for diagnosis" in text
    outside = [line for line in text.splitlines() if 'src="http' in line or 'href="http' in line]
    assert outside == []


def test_evaluating_again_gives_the_same_figures(workplace, comparison):
    out, content = comparison
    run = out / content["runs"]["clip"][0]
    before = json.loads((run / "results.json").read_text())["figures"]
    done = gapless("evaluate", run, "--data", workplace / "data", "--num_bootstrap", 50, "--json")
    assert json.loads(succeeded(done))["figures"] == before


def test_config_files_and_overrides(workplace):
    shown = succeeded(
        gapless("train", "phantom-small", "--data", "d", "--out", "o", "--method", "clip", "--print_config", *TINY)
    )
    assert "alignment_weight: 0.0" in shown
    assert "num_train_epochs: 2" in shown
    (workplace / "config.yaml").write_text(shown)
    again = gapless(
        "train", "phantom-small", "--config", workplace / "config.yaml", "--loss.temperature", 0.5, "--print_config"
    )
    assert "temperature: 0.5" in succeeded(again)
    assert "num_train_epochs: 2" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonsense"], 2, "unknown verb"),
        (["train", "phantom-tall", "--data", "d", "--out", "o"], 2, "phantom-small"),
        (["train", "phantom-small", "--data", "nowhere", "--out", "o"], 2, "nowhere"),
        (["train", "phantom-small", "--data", "d", "--out", "o", "--method", "clop"], 2, "gapless-published"),
        (["train", "phantom-small", "--data", "d", "--out", "o", "--loss.tau", "1"], 2, "loss.tau"),
        (["compare", "--data", "d", "--out", "o", "--methods", "clip,clip"], 2, "d does not exist"),
        (["train", "phantom-small", "--data", "d", "--out", "o", "--anchor", "sound"], 2, "image, text"),
        (["train", "phantom-small", "--data", "d", "--out", "o", "--embedding_dim", "-4"], 2, "embedding_dim"),
        (["evaluate", "nowhere", "--data", "nowhere"], 2, "nowhere"),
        (["report", "nowhere", "--out", "r.html"], 2, "nowhere"),
        (["data", "table", "nowhere.csv", "--out", "o"], 2, "nowhere.csv"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code(tmp_path, arguments, code, said):
    done = gapless(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ci
def test_an_interrupted_comparison_continues(workplace, tmp_path):
    out = tmp_path / "compare"
    words = ("compare", "--data", workplace / "data", "--methods", "clip", "--seeds", 1, "--out", out, *TINY)
    process = shared_server().start(*words, "--num_bootstrap=0")
    deadline = time.monotonic() + 120
    while not list(out.rglob("metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    done = process.communicate()
    assert done.returncode == 130, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert not list(out.rglob("results.json"))
    succeeded(gapless(*words, "--num_bootstrap=0"))
    assert (out / "compare.json").exists()
    assert not list(out.rglob("*partial*"))
