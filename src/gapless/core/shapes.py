"""Types of tensors with their shapes.

With jaxtyping installed (the `dev` extra) the test run checks them at every call; without it they are plain tensors,
so that the losses need only torch and numpy.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING or find_spec("jaxtyping") is None:
    Embeddings = Tensor
    Positives = Tensor
    Rows = Tensor
    Scalar = Tensor
else:
    from jaxtyping import Float, Integer

    Embeddings = Float[Tensor, "pair dim"]
    Positives = Integer[Tensor, "pair"]
    Rows = Float[Tensor, "pair"]
    Scalar = Float[Tensor, ""]
