"""Clinical scores: counts worked by hand, intervals by groups, labellers of others, and the worst captions."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from fakes import tiny_bert
from safetensors.torch import save_file
from scipy import stats

from gapless.captioning.clinical import ClinicalScorer, Errors, errors_of, together
from gapless.captioning.findings import Mention
from gapless.captioning.labellers import chexbert, radgraph
from gapless.captioning.labellers.base import load_labellers
from gapless.core.errors import DataRefused, UsageError
from gapless.metrics.catalogue import entry_of, label_of
from gapless.metrics.uncertainty import GroupSums, bootstrap
from gapless.models.tokenizers import train_tokenizer

REFERENCES = [
    ["Left effusion, no pneumothorax.", "Small effusion and a 2 cm nodule."],
    ["Right lower lobe mass. No edema."],
    ["Fracture of the left hip."],
    ["The lungs are clear."],
]
CAPTIONS = ["Right effusion, pneumothorax.", "Right mass, 3 mm nodule, no edema.", "No fracture.", "A 2 cm cyst."]


def scorer(references=REFERENCES, index=(0, 1, 2, 3), **options):
    return ClinicalScorer(references, GroupSums(torch.tensor(index), max(index) + 1), **options)


def test_scores_by_hand():
    """Named by both: effusion, mass. Captions name 5 (and cyst), references effusion, nodule, mass, fracture."""
    figures = {key: figure.value for key, figure in scorer().figures(CAPTIONS).items()}
    assert figures["caption/findings/precision"] == pytest.approx(2 / 5)
    assert figures["caption/findings/recall"] == pytest.approx(2 / 4)
    assert figures["caption/findings/F1"] == pytest.approx(2 * 2 / 9)
    # denied: captions edema, fracture; references pneumothorax, edema
    assert figures["caption/findings/denied_F1"] == pytest.approx(2 * 1 / 4)
    # both speak of effusion, pneumothorax (confused), mass, edema, fracture (confused)
    assert figures["caption/findings/confused"] == pytest.approx(2 / 5)
    assert figures["caption/findings/side_errors"] == pytest.approx(1 / 2)
    # numbers: captions 3 mm and 20 mm (another row), references 20 mm
    assert figures["caption/numbers/F1"] == 0.0


def test_captions_without_an_error_leave_room_for_one():
    """30 patients of whom 20 have a finding, all named: the interval of 20 trials, and of what is never confused."""
    references = [["Left effusion."]] * 20 + [["Normal."]] * 10
    made = scorer(references, tuple(range(30)))
    found = bootstrap(made.figures([texts[0] for texts in references]), 30, 100)
    exact = stats.binomtest(20, 20).proportion_ci().low
    for key in ("precision", "recall", "F1"):
        interval = found[f"caption/findings/{key}"]
        assert (interval["value"], interval["high"]) == (1.0, 1.0)
        assert interval["low"] == pytest.approx(exact, abs=0.05)
    assert found["caption/findings/confused"]["low"] == 0.0
    assert found["caption/findings/confused"]["high"] == pytest.approx(1 - exact, abs=0.05)


def test_the_references_as_captions_are_right():
    figures = {key: figure.value for key, figure in scorer().figures([texts[-1] for texts in REFERENCES]).items()}
    assert figures["caption/findings/precision"] == 1.0
    assert figures["caption/findings/confused"] == 0.0
    assert figures["caption/numbers/F1"] == 1.0


def test_a_bootstrap_draws_whole_groups():
    """Two groups: F1 of a draw of the first alone, of the second alone, or of both."""
    made = scorer(index=(0, 0, 1, 1))
    figure = made.figures(CAPTIONS)["caption/findings/F1"]
    draws = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    assert figure.replicates(draws).tolist() == pytest.approx([2 * 2 / 7, 0.0, 2 * 2 / 9])
    interval = bootstrap({"f": figure}, 2, 200)["f"]
    assert interval["low"] == 0.0
    assert interval["high"] >= 4 / 7


def test_a_score_without_anything_to_count_is_missing_with_its_reason():
    made = scorer([["ein Befund"], ["zwei"]], (0, 1))
    figures = made.figures(["", "drei"])
    assert figures == {}
    missing = made.missing(figures)
    assert "caption/findings/F1" in missing
    assert "the vocabulary is English" in missing["caption/numbers/F1"]


def test_errors_in_words():
    errors = errors_of(
        {"mass": Mention("present", "left"), "edema": Mention("present")},
        {"mass": Mention("present", "right"), "edema": Mention("denied"), "cyst": Mention("uncertain")},
    )
    assert errors.sentence() == "invented: edema; missed: cyst; named for denied: edema; wrong side: mass"
    assert errors.f1 == pytest.approx(2 / 4)
    assert errors.num_wrong == 3
    assert Errors().f1 is None


def test_of_several_references_a_present_finding_counts_first():
    merged = together(
        [{"mass": Mention("denied")}, {"mass": Mention("present", "left")}, {"mass": Mention("uncertain")}]
    )
    assert merged == {"mass": Mention("present", "left")}


# labellers of others


def tiny_chexbert(folder, **changes):
    from transformers import BertConfig

    torch.manual_seed(0)
    config = BertConfig(**{**tiny_bert(), **changes})
    model = chexbert.CheXbert(config)
    config.save_pretrained(folder)
    train_tokenizer(["left effusion", "no mass"], 400, 32).save_pretrained(folder)
    save_file({f"module.{name}": weight for name, weight in model.state_dict().items()}, folder / "model.safetensors")
    return model


def test_chexbert_labels_by_the_heads_of_its_weights(tmp_path):
    model = tiny_chexbert(tmp_path)
    labeller = load_labellers({"chexbert": tmp_path})["chexbert"]
    with torch.no_grad():
        for head in model.linear_heads:
            head.weight.zero_()
            head.bias.zero_()
        model.linear_heads[9].bias[1] = 1.0  # positive
        model.linear_heads[8].bias[2] = 1.0  # negative
        model.linear_heads[4].bias[3] = 1.0  # uncertain
    save_file(dict(model.state_dict().items()), tmp_path / "model.safetensors")
    changed = load_labellers({"chexbert": tmp_path})["chexbert"](["left effusion", "no mass"])
    expected = {
        "pleural effusion": Mention("present"),
        "pneumothorax": Mention("denied"),
        "edema": Mention("uncertain"),
    }
    assert changed == [expected, expected]
    assert labeller(["left effusion"]) != [expected], "the control: other weights label otherwise"
    figures = scorer(labellers={"chexbert": load_labellers({"chexbert": tmp_path})["chexbert"]}).figures(CAPTIONS)
    assert figures["caption/chexbert/F1"].value == 1.0
    assert label_of("caption/chexbert/F1") == "chexbert, F1"
    assert entry_of("caption/chexbert/confused").better == "lower"


def test_a_labeller_without_its_weights_is_refused_in_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="no such directory of weights; none are downloaded"):
        load_labellers({"chexbert": tmp_path / "none"})
    with pytest.raises(UsageError, match=r"lacks config\.json, tokenizer_config\.json, model\.safetensors"):
        load_labellers({"chexbert": tmp_path})
    with pytest.raises(UsageError, match="labeller 'chexpert'"):
        load_labellers({"chexpert": tmp_path})
    with pytest.raises(UsageError, match="holds none of radgraph-xl"):
        load_labellers({"radgraph": tmp_path})
    (tmp_path / "radgraph-xl").mkdir()
    (tmp_path / "radgraph-xl" / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "radgraph", None)
    with pytest.raises(UsageError, match="pip install radgraph"):
        load_labellers({"radgraph": tmp_path})
    tiny_chexbert(tmp_path)
    save_file({"bert.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(DataRefused, match="holds no weights of CheXbert"):
        load_labellers({"chexbert": tmp_path})


ANNOTATION = {
    "entities": {
        "1": {"tokens": "Effusion", "label": "Observation::definitely absent", "relations": []},
        "2": {"tokens": "chest", "label": "Anatomy::definitely present", "relations": []},
        "3": {"tokens": "effusion", "label": "Observation::uncertain", "relations": []},
        "4": {"tokens": "mass", "label": "OBS-DP", "relations": []},
    }
}


def test_radgraph_is_asked_by_its_own_package(tmp_path, monkeypatch, capsys):
    """The package is a stand-in with the calls of radgraph 0.1.18; the model itself was not at hand."""
    (tmp_path / "radgraph-xl").mkdir()
    (tmp_path / "radgraph-xl" / "config.json").write_text("{}", encoding="utf-8")
    asked = []

    def package(**options):
        sys.stdout.write("Using device: cpu")
        asked.append(options)
        return lambda texts: {"0": ANNOTATION, "1": {"entities": {}}}

    monkeypatch.setitem(sys.modules, "radgraph", SimpleNamespace(RadGraph=package))
    labeller = load_labellers({"radgraph": tmp_path})["radgraph"]
    assert asked == [{"model_type": "radgraph-xl", "model_cache_dir": str(tmp_path), "cuda": -1}]
    assert labeller(["a", "b"]) == [{"effusion": Mention("uncertain"), "mass": Mention("present")}, {}]
    assert labeller([]) == []
    assert capsys.readouterr().out == "", "stdout is for results"
    assert radgraph.observations(json.loads("{}")) == {}
