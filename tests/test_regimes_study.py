"""Every regime of the study at a size of seconds: all arms come out, a second call makes nothing, a page is written."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import tiny_modalities
from PIL import Image

from gapless.training.recipes import Recipe

EXAMPLES = Path(__file__).parent.parent / "examples"
ENCODERS = ("phantom-two", "phantom-three", "growing-phantom", "medpix-scratch", "medpix-finetuned")
FROZEN = ("frozen", "growing-frozen")
pytestmark = pytest.mark.slow  # some twenty trainings
ARMS = {"clip", "gapless-held-out"}


@pytest.fixture(scope="module")
def study():
    sys.path.insert(0, str(EXAMPLES))
    import regimes_study

    yield regimes_study
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def medpix(tmp_path_factory) -> Path:
    """Features, captions and images as the study's folder has them: 40 cases of four rows, and 10 to measure."""
    folder = tmp_path_factory.mktemp("medpix")
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    for part, cases in (("train", range(40)), ("dev", range(40, 50))):
        lines, shared = [], random.standard_normal((4 * len(cases), 8))
        for row in range(4 * len(cases)):
            name = f"images/{part}{row}.png"
            Image.fromarray(random.integers(0, 255, (16, 16), dtype=np.uint8)).save(folder / name)
            case = cases[row // 4]
            place = ("head", "chest")[case % 2]
            lines.append(
                {
                    "image": name,
                    "caption": f"{place} of case {case}, view {row}",
                    "case": str(case),
                    "location_category": place,
                }
            )
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        image, text = (shared @ random.standard_normal((8, dim)) for dim in (12, 10))
        np.savez(folder / f"features_{part}.npz", image=image.astype(np.float32), text=text.astype(np.float32))
    return folder


def tiny_recipe(name: str) -> Recipe:
    recipe = Recipe(tiny_modalities(), embedding_dim=16, vocab_size=300, training={"per_device_train_batch_size": 8})
    if name != "phantom-three":
        return recipe
    waveform = {
        "input": {"kind": "vector", "size": 64},
        "encoder": {"kind": "vector", "size": 64},
        "head": [{"kind": "linear", "size": 16}],
    }
    return replace(recipe, modalities={**recipe.modalities, "waveform": waveform})


@pytest.fixture(scope="module")
def out(study, medpix, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("regimes") / "out"
    patch = pytest.MonkeyPatch()
    patch.setattr(study, "get_recipe", tiny_recipe)
    patch.setattr(study, "METHODS", ("clip", "gapless-held-out"))
    patch.setattr(study, "VALIDATING", 40)
    patch.setattr(study, "GALLERY", 40)
    for regime in (*FROZEN, *ENCODERS):
        pairs = {"growing-frozen": (80,), "growing-phantom": (40,)}.get(regime, (180,))
        study.run(
            regime,
            folder,
            medpix,
            study.Size(1, pairs, epochs=1, max_steps=6, arms=tuple(ARMS | {"clip, regularised"})),
        )
    yield folder
    patch.undo()


def test_every_regime_leaves_all_its_arms(out, study):
    for regime in (*FROZEN, *ENCODERS):
        (folder,) = (
            path
            for path in out.glob(f"{regime}*")
            if path.name.removeprefix(regime).strip("-").isdigit() or path.name == regime
        )
        arms = {path.parent.name.rpartition("-seed")[0] for path in folder.glob("*-seed0/embeddings.safetensors")}
        strongest = "clip, regularised" if regime in FROZEN else "clip"
        closed = {f"{arm}, then {method}" for arm in (strongest, "gapless-held-out") for method in study.AFTERWARDS}
        if regime == "phantom-three":
            closed = {arm for arm in closed if arm.endswith("center")}
        assert arms == ARMS | {strongest} | closed, regime


def test_a_second_call_makes_nothing_again(out, study, medpix, monkeypatch):
    monkeypatch.setattr(study, "closed", None)  # would fail if it were called
    times = {path: path.stat().st_mtime_ns for path in out.glob("frozen/*/run.json")}
    study.run("frozen", out, medpix, study.Size(1, max_steps=6, arms=tuple(ARMS | {"clip, regularised"})))
    assert times == {path: path.stat().st_mtime_ns for path in out.glob("frozen/*/run.json")}


def test_the_page_has_the_figures_of_the_runs(out, study, tmp_path, monkeypatch):
    import regimes_page

    monkeypatch.setattr(regimes_page, "NUM_BOOTSTRAP", 10)
    regimes_page.write_page(out, tmp_path / "regimes.md")
    text = (tmp_path / "regimes.md").read_text()
    regime = regimes_page.read_regime(out / "frozen")
    recall = regimes_page.figures_of(regime)["gapless-held-out"][0, regimes_page.SHOWN.index(regimes_page.RECALL)]
    (line,) = [
        line
        for line in text.split("## Heads on frozen MedPix features\n")[1].splitlines()
        if line.startswith("| `gapless-held-out` |")
    ][:1]
    assert f" {100 * recall:.1f} " in line
    assert "Not run yet" not in text
    assert text.count("R@10: low end of the interval") == 2 * len((*FROZEN, *ENCODERS))  # of two arms each
