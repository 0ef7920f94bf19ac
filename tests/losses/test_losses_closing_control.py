"""The controller of the closing weight: its rules one by one, on figures made by hand."""

import json

import pytest

from gapless.losses.closing_control import ClosingControl, ControlSettings, HeldOutFigures

SETTINGS = ControlSettings(multiple=6.0, target_gap=0.1, tolerance=0.1, rise=0.25, patience=3)
NEW_FIELDS = ("best_ranks", "best_effective_rank", "fallen")


def held_out(
    readiness: float, gap: float = 0.4, spread: float = 0.0, recall: float = 0.5, rank: float = 40.0
) -> HeldOutFigures:
    """Four queries whose mean loss is 1 - readiness, and whose reciprocal ranks are all the recall."""
    loss = 1 - readiness
    return HeldOutFigures([loss - spread, loss + spread, loss - spread, loss + spread], [recall] * 4, gap, rank)


def controlled(*figures: HeldOutFigures, limit: float = 8.0, scale: float = 10.0) -> tuple[ClosingControl, list[float]]:
    control = ClosingControl(SETTINGS)
    control.observe(held_out(0.2), limit=0.0, logit_scale=scale, step=0)
    return control, [control.observe(one, limit, scale, step) for step, one in enumerate(figures, start=1)]


def test_readiness_is_one_less_the_mean_loss_and_never_below_0():
    assert held_out(0.25).readiness == pytest.approx(0.25)
    assert held_out(-0.5).readiness == 0.0


def test_nothing_is_closed_while_the_clock_forbids_it():
    control = ClosingControl(SETTINGS)
    assert control.observe(held_out(0.9, gap=0.5), limit=0.0, logit_scale=50.0, step=3) == 0.0
    assert control.state.best_readiness == pytest.approx(0.9)


def test_the_weight_is_what_readiness_earns_and_at_most_the_limit():
    # 6 * 0.05 * 10 = 3; 6 * 0.1 * 10 = 6; 6 * 0.5 * 10 = 30, of which 8 are allowed
    _, weights = controlled(held_out(0.2), held_out(0.3), held_out(0.5))
    assert weights == pytest.approx([8.0, 8.0, 8.0])
    _, weights = controlled(held_out(0.2), scale=2.5)
    assert weights == pytest.approx([3.0])


def test_encoders_that_have_learnt_nothing_are_not_aligned():
    control = ClosingControl(SETTINGS)
    control.observe(held_out(0.0), limit=0.0, logit_scale=14.0, step=0)
    assert control.observe(held_out(-0.1), limit=8.0, logit_scale=14.0, step=1) == 0.0
    assert not control.summary()["pays"]
    assert "was not closed" in control.summary()["sentence"]


def test_a_loss_of_readiness_halves_the_weight_and_it_grows_back():
    # the best is 0.2, so that 0.02 may be lost; 6 * 0.17 * 4 = 4.08, half of it, then 0.75 of 6 * 0.2 * 4 = 4.8
    _, weights = controlled(held_out(0.17), held_out(0.2), held_out(0.2), scale=4.0)
    assert weights == pytest.approx([2.04, 3.6, 4.8])


def test_a_loss_within_the_tolerance_changes_nothing():
    control, weights = controlled(held_out(0.185), scale=4.0)
    assert weights == pytest.approx([4.44])
    assert control.state.objections == 0


def test_a_loss_within_its_noise_is_no_objection():
    """The same mean loss, with queries that disagree: 0.03 +- 0.15 of four queries is noise."""
    control, _ = controlled(held_out(0.17, spread=0.15))
    assert control.state.objections == 0
    certain, _ = controlled(held_out(0.17))
    assert certain.state.objections == 1


def test_a_loss_of_recall_halves_the_weight_though_readiness_stays():
    # the best recall is 0.5, so that 0.05 may be lost
    control, weights = controlled(held_out(0.2, recall=0.46), held_out(0.2, recall=0.44), scale=4.0)
    assert weights == pytest.approx([4.8, 2.4])
    assert control.state.fallen == "recall"


def test_a_loss_of_recall_within_its_noise_is_no_objection():
    """Reciprocal ranks of 1, 1, 0.1, 0.1 have the mean 0.55 of 0.6 before, with a standard error of 0.26."""
    control = ClosingControl(SETTINGS)
    control.observe(HeldOutFigures([0.8] * 4, [0.6] * 4, 0.4, 40.0), limit=0.0, logit_scale=4.0, step=0)
    control.observe(HeldOutFigures([0.8] * 4, [1.0, 1.0, 0.02, 0.02], 0.4, 40.0), 8.0, 4.0, 1)
    assert control.state.objections == 0
    control.observe(HeldOutFigures([0.8] * 4, [0.51] * 4, 0.4, 40.0), 8.0, 4.0, 2)
    assert control.state.objections == 1


def test_an_effective_rank_that_falls_by_half_halves_the_weight():
    """What falls before alignment has a weight, while a training begins, does not count."""
    control = ClosingControl(SETTINGS)
    control.observe(held_out(0.2, rank=90.0), limit=0.0, logit_scale=4.0, step=0)
    course = [held_out(0.2, rank=rank) for rank in (40.0, 21.0, 19.0)]
    assert [control.observe(one, 8.0, 4.0, 1) for one in course] == pytest.approx([4.8, 4.8, 2.4])
    assert control.state.fallen == "effective rank"


def test_rows_that_never_vary_have_no_effective_rank_to_lose_and_others_may_lose_it_all():
    control, _ = controlled(held_out(0.2, rank=0.0), held_out(0.2, rank=0.0))
    assert control.state.objections == 0
    control, _ = controlled(held_out(0.2, rank=40.0), held_out(0.2, rank=0.0))
    assert control.state.fallen == "effective rank"


def test_the_sentence_names_the_figure_that_fell():
    control, _ = controlled(*[held_out(0.2, recall=0.3)] * 3)
    assert "and recall fell as alignment grew" in control.summary()["sentence"]


def test_a_state_of_before_recall_counted_is_taken():
    control, _ = controlled(held_out(0.2))
    old = {name: value for name, value in control.state_dict().items() if name not in NEW_FIELDS}
    again = ClosingControl(SETTINGS)
    again.load_state_dict(old)
    assert again.observe(held_out(0.17), 8.0, 4.0, 2) == pytest.approx(2.04)


def test_closing_that_does_not_pay_ends_for_good():
    control, weights = controlled(*[held_out(0.1)] * 3, held_out(0.9))
    assert weights[0] > weights[1] > 0
    assert weights[2:] == [0.0, 0.0]
    summary = control.summary()
    assert summary["stopped_at"] == 3
    assert not summary["pays"]
    assert "stopped at step 3" in summary["sentence"]


def test_objections_that_are_not_in_a_row_do_not_end_it():
    control, _ = controlled(held_out(0.1), held_out(0.1), held_out(0.2), held_out(0.1), held_out(0.1))
    assert control.state.stopped_at is None


def test_the_target_gap_is_held_and_not_driven_to_0():
    control = ClosingControl(SETTINGS)
    control.observe(held_out(0.2, gap=0.4), limit=0.0, logit_scale=10.0, step=0)
    weights = [
        control.observe(held_out(0.2, gap), limit, 10.0, step)
        for step, (gap, limit) in enumerate([(0.4, 2.0), (0.2, 4.0), (0.1, 6.0), (0.05, 8.0), (0.15, 8.0)], start=1)
    ]
    assert weights == pytest.approx([2.0, 4.0, 4.0, 4.0, 8.0])  # 0.1 is reached, and left at 0.15


def test_a_controller_goes_on_from_its_state_to_the_bit():
    course = [held_out(0.17, 0.3), held_out(0.21, 0.2, 0.1), held_out(0.1), held_out(0.1), held_out(0.25)]
    whole, weights = controlled(*course)
    first, _ = controlled(*course[:2])
    second = ClosingControl(SETTINGS)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [second.observe(one, 8.0, 10.0, step) for step, one in enumerate(course[2:], start=3)] == weights[2:]
    assert second.state == whole.state


def held(control: ClosingControl, step: int, readiness: float, gap: float) -> float:
    figures = held_out(readiness, gap=gap)
    return control.observe(figures, control.limit_that_holds(figures, 8.0), logit_scale=10.0, step=step)


def test_the_gap_that_a_model_came_with_is_held_by_as_much_weight_as_it_takes():
    """A quarter of 8 more above the gap of the start, 0.3, and a quarter less at or below it.

    Readiness falls from 0.2 to 0.1 without alignment, which is no objection. Its fall to 0.05 is one: half of
    min(4 + 2, 6 * 0.05 * 10 = 3).
    """
    control = ClosingControl(SETTINGS)
    seen = [(0.2, 0.3), (0.1, 0.5), (0.1, 0.4), (0.05, 0.4), (0.1, 0.2)]
    weights = [held(control, step, readiness, gap) for step, (readiness, gap) in enumerate(seen)]
    assert weights == pytest.approx([0.0, 2.0, 4.0, 1.5, 0.0])
    assert control.target_gap == pytest.approx(0.3)


def test_a_gap_below_the_target_of_the_settings_may_open_up_to_it():
    control = ClosingControl(SETTINGS)
    assert [held(control, step, 0.2, gap) for step, gap in enumerate((0.02, 0.1))] == [0.0, 0.0]
    summary = control.summary()
    assert (summary["pays"], summary["alignment_weight"]) == (True, 0.0)
    assert "stayed at most 0.100 without alignment" in summary["sentence"]
    assert held(control, 2, 0.2, 0.11) == pytest.approx(2.0)


def test_a_controller_that_holds_goes_on_from_its_state():
    control, again = ClosingControl(SETTINGS), ClosingControl(SETTINGS)
    for step, gap in enumerate((0.3, 0.5)):
        held(control, step, 0.2, gap)
    again.load_state_dict(json.loads(json.dumps(control.state_dict())))
    assert held(again, 2, 0.2, 0.4) == held(control, 2, 0.2, 0.4) == pytest.approx(4.0)
