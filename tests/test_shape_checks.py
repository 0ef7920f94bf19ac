"""The check of shapes while the tests run sees a wrong shape, at every call of a function of a module."""

import pytest
import shape_checks
import torch
from beartype import beartype
from jaxtyping import TypeCheckError

from gapless.losses.gap_closing import align_true_pairs


def test_a_wrong_shape_is_seen_at_every_call() -> None:
    for _ in range(2 * shape_checks.TIMES):
        with pytest.raises(TypeCheckError):
            align_true_pairs(torch.eye(3), torch.eye(3)[0])


def test_a_function_inside_a_function_is_checked_the_first_times() -> None:
    def outer(value: object) -> None:
        @shape_checks.checked(typechecker=beartype)
        def inner(row: torch.Tensor) -> torch.Tensor:
            return row

        inner(value)

    for _ in range(shape_checks.TIMES):
        with pytest.raises(TypeCheckError):
            outer(1)
    outer(1)
