"""Our figures as an evaluator of sentence-transformers: those of `measure` on what the model encodes."""

import pytest
import torch

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

from fakes import tiny_sentence_model

from gapless import measure
from gapless.core.errors import UsageError
from gapless.interop import GapEvaluator

COLUMNS = {
    "finding": [f"{side} {organ} opacity" for side in ("left", "right") for organ in ("lung", "liver", "kidney")],
    "impression": [f"{side} {organ} mass" for side in ("left", "right") for organ in ("lung", "liver", "kidney")],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_sentence_model(tmp_path_factory.mktemp("tiny"), [text for texts in COLUMNS.values() for text in texts])


def test_the_figures_are_those_of_measure(model):
    evaluator = GapEvaluator(COLUMNS, name="test", batch_size=4)
    figures = evaluator(model)
    rows = {name: model.encode(texts, convert_to_tensor=True).cpu() for name, texts in COLUMNS.items()}
    expected = measure(rows, include=("gap", "retrieval"))
    assert figures["test_gap/true_pair_cosine"] == pytest.approx(expected["gap/true_pair_cosine"], abs=1e-5)
    assert figures["test_gallery_size"] == 6
    assert {key.removeprefix("test_") for key in figures} == {
        key for key, value in expected.items() if value is not None
    }
    assert (evaluator.primary_metric, evaluator.greater_is_better) == ("test_retrieval/mean/MRR", True)


def test_an_evaluator_of_ones_own_chooses_by_its_figure(model):
    class Gap:
        primary = "gap/centroid_distance"

        def __call__(self, rows):
            return {"gap/centroid_distance": (rows["finding"].mean(0) - rows["impression"].mean(0)).norm().item()}

    evaluator = GapEvaluator(COLUMNS, evaluator=Gap())
    assert (evaluator.primary_metric, evaluator.greater_is_better) == ("gap/centroid_distance", False)
    assert list(evaluator(model)) == ["gap/centroid_distance"]


def test_the_trainer_logs_the_figures_and_chooses_the_best_model_by_them(model, tmp_path):
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    best = "eval_test_retrieval/mean/MRR"
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path),
            max_steps=4,
            eval_strategy="steps",
            eval_steps=2,
            save_steps=2,
            load_best_model_at_end=True,
            metric_for_best_model=best,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict(COLUMNS),
        loss=MultipleNegativesRankingLoss(model),
        evaluator=GapEvaluator(COLUMNS, name="test"),
    )
    trainer.train()
    logged = [one[best] for one in trainer.state.log_history if best in one]
    assert len(logged) == 2
    assert trainer.state.best_metric == pytest.approx(max(logged))
    assert torch.isfinite(torch.tensor(logged)).all()


@pytest.mark.parametrize("columns", [{"a": ["x", "y"]}, {"a": ["x", "y"], "b": ["x"]}, {"a": ["x"], "b": ["y"]}])
def test_columns_that_are_no_pairs_are_refused(columns):
    with pytest.raises(UsageError, match="two columns or more of equal length"):
        GapEvaluator(columns)
