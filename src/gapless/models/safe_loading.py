"""How a saved model is read: nothing of it runs, nothing of it is unpickled, and what breaks is one sentence."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from gapless.core.errors import DataRefused, GaplessError, NeedsNetwork, UsageError, listed, one_line

SAFE = ".safetensors"
M = TypeVar("M")
T = TypeVar("T", bound=torch.nn.Module)


@contextmanager
def loading(source: str | PathLike[Any]) -> Iterator[None]:
    """What the libraries raise while they read a model, of every kind on damaged or hostile files, as one sentence."""
    try:
        yield
    except GaplessError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and not Path(source).exists():
            raise network_or_usage(str(source), error) from None
        raise DataRefused(f"{source} cannot be loaded as a model ({one_line(error)})") from error


def whole_weights(load: Callable[..., Any], source: str | PathLike[Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """What transformers' `from_pretrained` loads, and its loading info.

    Raises:
        DataRefused: weights that the model has and the file lacks, which transformers leaves as chance made them; or
            weights that the file has and the model does not know.
    """
    model, info = load(source, *args, **{**kwargs, "output_loading_info": True})
    for kind, said in (("missing_keys", "lacks"), ("unexpected_keys", "holds unknown")):
        names = sorted(info[kind])
        if names:
            raise DataRefused(f"{source} is a damaged model: it {said} weights ({len(names)}: {listed(names, 3)})")
    return model, info


def on_accelerator(model: T) -> T:
    """The same model, on the GPU where there is one."""
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return model


def as_asked(model: M, info: Any, options: Mapping[str, Any]) -> M:
    """The model; with `output_loading_info=True`, the model and that information, as transformers does."""
    found: Any = (model, info) if options.get("output_loading_info") else model
    return cast(M, found)


def saved_tokenizer(source: str | PathLike[Any], **where: Any) -> Any:
    """The tokenizer of a directory or hub name; one that would run its author's code is refused unasked."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source, trust_remote_code=False, **where)


def network_or_usage(source: str, error: Exception) -> Exception:
    """Which of the two a failed load is: a broken local directory, or a name that only the hub knows."""
    first_line = str(error).strip().splitlines()[0]
    if Path(source.removeprefix("local-dir:")).exists():
        return UsageError(f"{source} holds no model that can be read ({first_line})")
    return NeedsNetwork(
        f"{source!r} is not a local directory and the hub cannot be reached; give the path of a downloaded copy"
    )
