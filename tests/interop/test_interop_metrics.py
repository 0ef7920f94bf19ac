"""Our figures as torchmetrics metrics: those of `measure` over all batches and processes, whatever the batches."""

import socket
from functools import partial

import pytest
import torch
from torch import Tensor

pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")

import torch.distributed as dist
import torch.multiprocessing as mp
import torchmetrics

from gapless import measure
from gapless.core.errors import UsageError
from gapless.interop import GapMetric, GapMetrics
from gapless.interop.plain_figures import plain_figures

GAP = "gap/centroid_distance_unbiased"
RECALL = "retrieval/mean/R@10"


def pairs(num_pairs: int = 60, seed: int = 0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    shared = torch.randn(num_pairs, 8, generator=random)
    return {
        name: shared + 1.5 * torch.randn(num_pairs, 8, generator=random) + shift
        for name, shift in (("image", 0.5), ("text", -0.5))
    }


def part(rows, start, stop):
    return {name: matrix[start:stop] for name, matrix in rows.items()}


def filled(metric, rows, *cuts):
    for start, stop in zip((0, *cuts), (*cuts, 60), strict=True):
        metric.update(part(rows, start, stop))
    return metric


@pytest.mark.parametrize("cuts", [(), (7, 40), (1, 2, 59)])
def test_the_figures_are_those_of_measure_whatever_the_batches(cuts):
    rows = pairs()
    expected = measure(rows, include=("gap", "retrieval"))
    figures = filled(GapMetrics(), rows, *cuts).compute()
    assert figures.keys() == {key for key, value in expected.items() if value is not None}
    for key, value in figures.items():
        assert value.item() == pytest.approx(expected[key], rel=1e-6, abs=1e-6), key
    assert figures["gallery_size"] == 60


def test_a_mean_over_batches_is_another_number():
    """The control: whoever averages the recalls of batches has another figure, which is why rows are kept."""
    rows = pairs()
    whole = filled(GapMetric(RECALL), rows, 20, 40).compute()
    batches = [GapMetric(RECALL)(part(rows, start, start + 20)) for start in (0, 20, 40)]
    assert torch.stack(batches).mean() > whole + 0.1


def test_one_figure_says_which_way_is_better_and_forward_gives_its_batch():
    rows = pairs()
    gap, recall = GapMetric(GAP), GapMetric(RECALL)
    assert (gap.higher_is_better, recall.higher_is_better) == (False, True)
    batch = part(rows, 0, 20)
    assert recall(batch).item() == pytest.approx(measure(batch, include=("retrieval",))[RECALL])
    recall.update(part(rows, 20, 60))
    assert recall.compute().item() == pytest.approx(measure(rows, include=("retrieval",))[RECALL])
    recall.reset()
    with pytest.warns(UserWarning, match="before"), pytest.raises(UsageError, match="no pairs"):
        recall.compute()


def test_a_collection_of_metrics_keeps_the_rows_once():
    rows = pairs()
    both = torchmetrics.MetricCollection({"gap": GapMetric(GAP), "recall": GapMetric(RECALL)})
    for start in (0, 30):
        both.update(part(rows, start, start + 30))
    computed = both.compute()
    expected = measure(rows, include=("gap", "retrieval"))
    assert computed["gap"].item() == pytest.approx(expected[GAP])
    assert computed["recall"].item() == pytest.approx(expected[RECALL])
    assert len(both.compute_groups) == 1


def test_rows_that_lack_a_modality_count_only_where_they_have_it():
    rows = {**pairs(), "labs": pairs(seed=1)["image"]}
    present = {"labs": torch.arange(60) >= 15}
    torn = {**rows, "labs": rows["labs"].masked_fill(~present["labs"][:, None], float("nan"))}
    expected = measure(rows, present=present, include=("gap", "retrieval"))
    figures = filled(GapMetrics(("image", "text", "labs")), torn, 10, 30).compute()
    assert figures["gap/centroid_distance/image-labs"].item() == pytest.approx(
        expected["gap/centroid_distance/image-labs"]
    )
    assert figures["n/image-labs"] == 45


def test_any_function_from_rows_to_figures_measures():
    rows = pairs()
    mixed = partial(measure, include=("mixed",))
    assert filled(GapMetric("gap/mixing@10", evaluator=mixed), rows, 30).compute().item() == pytest.approx(
        mixed(rows)["gap/mixing@10"]
    )


def test_of_an_interval_the_value_is_logged_and_what_is_no_number_is_left_out():
    given = {"gap/x": {"value": 0.5, "low": 0.4, "high": 0.6}, "v": {"mean": 2, "sd": 1}, "n": 8, "y": None, "z": {}}
    assert plain_figures(given) == {"gap/x": 0.5, "v": 2.0, "n": 8.0}


def test_what_does_not_fit_is_refused_in_one_sentence():
    with pytest.raises(UsageError, match="two modalities or more"):
        GapMetrics(("image",))
    metric = GapMetric("gap/centroid_distanse")
    with pytest.raises(ValueError, match="expected rows of image, text, got image, report"):
        metric.update({"image": torch.eye(3), "report": torch.eye(3)})
    with pytest.raises(ValueError, match="of one length"):
        metric.update({"image": torch.eye(3), "text": torch.eye(4)})
    metric.update({"image": torch.eye(3), "text": torch.eye(3)})
    with pytest.raises(UsageError, match="gap/centroid_distance"):
        metric.compute()


def _rank(rank: int, port: int, rows: dict[str, Tensor]) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    metric = GapMetric(RECALL)
    metric.update(part(rows, 0, 25) if rank == 0 else part(rows, 25, 60))  # ranks of different sizes
    computed = metric.compute().item()
    dist.destroy_process_group()
    assert computed == pytest.approx(measure(rows, include=("retrieval",))[RECALL])


def test_two_processes_measure_the_rows_of_both():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    mp.start_processes(_rank, args=(port, pairs()), nprocs=2, start_method="fork")
