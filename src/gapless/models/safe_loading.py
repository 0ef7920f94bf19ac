"""Reads saved models safely: none of their code runs, nothing is unpickled, and every failure is one sentence."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from gapless.core.errors import DataRefused, GaplessError, NeedsNetwork, UsageError, listed, one_line
from gapless.core.launch import rank_and_count_here

SAFE = ".safetensors"
M = TypeVar("M")
T = TypeVar("T", bound=torch.nn.Module)


@contextmanager
def loading(source: str | PathLike[Any]) -> Iterator[None]:
    """Turn the exceptions of the block, which loads a model, into errors of gapless.

    On damaged or hostile files the libraries raise exceptions of every kind.

    Args:
        source: the directory or name, for the message.

    Raises:
        DataRefused: the block failed on a file. UsageError, NeedsNetwork: there is no such directory.
    """
    try:
        yield
    except GaplessError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and not Path(source).exists():
            raise network_or_usage(str(source), error) from None
        raise DataRefused(f"{source} cannot be loaded as a model ({one_line(error)})") from error


def whole_weights(load: Callable[..., Any], source: str | PathLike[Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Call transformers' `from_pretrained`, and refuse a file whose weights are not those of the model.

    Returns:
        The model, and the loading information of transformers.

    Raises:
        DataRefused: the file lacks weights of the model, which transformers would leave at random values, or it holds
            weights that the model does not have.
    """
    model, info = load(source, *args, **{**kwargs, "output_loading_info": True})
    for kind, complaint in (("missing_keys", "lacks"), ("unexpected_keys", "holds unknown")):
        names = sorted(info[kind])
        if names:
            raise DataRefused(f"{source} is a damaged model: it {complaint} weights ({len(names)}: {listed(names, 3)})")
    return model, info


def on_accelerator(model: T) -> T:
    """Move a model to the GPU, if there is one, and return it.

    Each process of torchrun on a machine takes a GPU of its own, while there are enough.
    """
    count = torch.cuda.device_count()
    model.to(torch.device("cuda", rank_and_count_here()[0] % count) if count else torch.device("cpu"))
    return model


def as_asked(model: M, info: Any, options: Mapping[str, Any]) -> M:
    """What `from_pretrained` returns: the model, or (model, info) with `output_loading_info=True`."""
    result: Any = (model, info) if options.get("output_loading_info") else model
    return cast(M, result)


def saved_tokenizer(source: str | PathLike[Any], **where: Any) -> Any:
    """The transformers tokenizer of a directory or hub name; one that needs code of its author is not loaded.

    Args:
        where: further arguments of `AutoTokenizer.from_pretrained`, such as `subfolder`.
    """
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source, trust_remote_code=False, **where)


def network_or_usage(source: str, error: Exception) -> Exception:
    """The error for a load that failed: UsageError for a local directory, NeedsNetwork for a name on the hub."""
    first_line = str(error).strip().splitlines()[0]
    if Path(source.removeprefix("local-dir:")).exists():
        return UsageError(f"{source} holds no model that can be read ({first_line})")
    return NeedsNetwork(
        f"{source!r} is not a local directory and the hub cannot be reached; give the path of a downloaded copy"
    )
