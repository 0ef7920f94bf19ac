"""What comes out of a Ray cluster: an error of our own code as it was, one of the cluster as one sentence."""

import pytest

from gapless.core.errors import DataRefused, GaplessError
from gapless.core.ray_cluster import ray_errors

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray")


def test_a_cluster_that_cannot_finish_is_one_sentence() -> None:
    from ray.exceptions import NodeDiedError, OutOfMemoryError

    for error in (OutOfMemoryError("killed due\n to the node running low on memory."), NodeDiedError("a node died")):
        with (
            pytest.raises(GaplessError, match=r"^Ray gave up \([^\n]*\); the same command goes on from here$"),
            ray_errors(),
        ):
            raise error


def test_what_a_task_raised_is_raised_as_it_was() -> None:
    from ray.exceptions import RayTaskError, UserCodeException

    cause = DataRefused("3 images cannot be read")
    with pytest.raises(DataRefused) as caught, ray_errors():
        raise RayTaskError("embed", "a long traceback", cause)
    assert caught.value is cause
    with pytest.raises(UserCodeException), ray_errors():
        raise UserCodeException
    with pytest.raises(KeyError), ray_errors():
        raise KeyError("a fault of ours")
