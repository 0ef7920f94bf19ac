"""The door of losses: one file of another package is a whole method of `compare`, `train` and the saved model."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import tiny_modalities
from outside_package import OutsideSite

from gapless.core.errors import UsageError
from gapless.losses.saved import MissingLoss
from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessModel
from gapless.models.fingerprint import fingerprint_of
from gapless.study.figures import curves_present

pytestmark = pytest.mark.ci  # a package from outside, installed and used in processes of its own

OUTSIDE = "outside-sigmoid"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom of few rows as `data`, and `tiny.yaml`, a recipe of seconds."""
    folder = tmp_path_factory.mktemp("door")
    write_phantom(folder / "data", num_pairs=24, num_validation=0, num_test=8, image_size=16)
    recipe = {
        "modalities": tiny_modalities(),
        "embedding_dim": 8,
        "vocab_size": 200,
        "training": {"num_train_epochs": 1, "per_device_train_batch_size": 8, "logging_steps": 1, "use_cpu": True},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(outside_site: OutsideSite, workplace: Path) -> Path:
    """A run of the method from outside, with one of its own options."""
    words = ["train", "phantom-small", "--config", "tiny.yaml", "--data", "data", "--out", "run"]
    succeeded(outside_site.gapless(*words, "--method", OUTSIDE, "--loss.sharpness", 4, cwd=workplace))
    return workplace / "run"


def test_a_comparison_has_a_column_for_the_method_and_curves_for_its_terms(
    outside_site: OutsideSite, workplace: Path
) -> None:
    words = ["compare", "--config", "tiny.yaml", "--data", "data", "--methods", f"clip,{OUTSIDE}", "--seeds", 1]
    words += ["--num_bootstrap", 20, "--out", "both", "--json"]
    comparison = json.loads(succeeded(outside_site.gapless(*words, cwd=workplace)))
    assert comparison["methods"] == ["clip", OUTSIDE, "clip + center", "clip + cca"]
    assert "retrieval/mean/R@10" in comparison["table"][OUTSIDE]
    assert OUTSIDE in comparison["differences"]
    assert OUTSIDE in (workplace / "both" / "table.md").read_text()
    lines = lines_of(workplace / "both" / "runs" / f"{OUTSIDE}-seed0")
    assert curves_present({OUTSIDE: [lines]}) == ["loss/total", "loss/match", "loss/mismatch", "logit_scale"]


def test_its_settings_are_options_and_reach_the_loss(trained: Path) -> None:
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["method"] == OUTSIDE
    assert config["settings"]["loss"] == {"sharpness": 4.0, "bias": -5.0}
    assert lines_of(trained)[0]["logit_scale"] == pytest.approx(4.0, rel=0.02)  # after one step


def test_a_misspelt_setting_names_the_nearest_of_its_own(outside_site: OutsideSite, workplace: Path) -> None:
    words = ["train", "phantom-small", "--method", OUTSIDE, "--data", "data", "--out", "o"]
    done = outside_site.gapless(*words, "--loss.shrapness", 4, cwd=workplace)
    assert done.returncode == 2
    assert "unknown option --loss.shrapness; did you mean --loss.sharpness?" in done.stderr


def test_a_saved_model_has_its_loss_where_the_package_is_and_embeds_the_same_where_it_is_not(
    outside_site: OutsideSite, trained: Path
) -> None:
    code = (
        "import json\n"
        "from gapless import GaplessModel\n"
        "from gapless.models.fingerprint import fingerprint_of\n"
        "model = GaplessModel.from_pretrained('run/model')\n"
        "print(type(model.loss).__name__, model.loss.anchor, round(float(model.loss.logit_bias), 1))\n"
        "print(json.dumps([fingerprint_of(model), model.encode('text', ['a cyst']).tolist()]))"
    )
    loss, embedded = succeeded(outside_site.python("-c", code, cwd=trained.parent)).splitlines()
    assert loss.split() == ["SigmoidLoss", "text", "-5.0"]
    model = GaplessModel.from_pretrained(trained / "model")  # this process has no such package
    assert isinstance(model.loss, MissingLoss)
    assert json.loads(embedded) == [fingerprint_of(model), model.encode("text", ["a cyst"]).tolist()]
    embeddings = {name: model.encode("text", ["a", "b"]) for name in ("image", "text")}
    with pytest.raises(UsageError, match=r"'outside-sigmoid' of the package 'gapless_outside', which is not installed"):
        model.loss(embeddings)


def test_without_the_package_its_name_is_unknown(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The control: nothing of gapless itself knows the method."""
    from gapless.cli.main import main

    words = ["compare", "--data", str(workplace / "data"), "--methods", f"clip,{OUTSIDE}", "--out", "nowhere"]
    assert main(words) == 2
    assert f"unknown method '{OUTSIDE}'; known: align-clip" in capsys.readouterr().err
