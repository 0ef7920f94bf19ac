"""Models for elsewhere: one ONNX graph per modality, or a directory ready for a model hub.

export_onnx(model, Path("onnx"))        # image.onnx, text.onnx, onnx.json, tokenizer/
export_hub(model, card, Path("hub"))    # model files and README.md; nothing is sent anywhere
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gapless.core.errors import GaplessError, NeedsNetwork, UsageError, missing_extra
from gapless.core.files import new_directory, write_json, write_text
from gapless.models.aligner import GaplessModel
from gapless.models.tokenizers import tokenizer_home

ONNX_TOLERANCE = 1e-4
OUTPUT = "unit_norm_embedding"  # a graph may have a node of the name "embedding"
CHECKED_BATCHES = (1, 2, 3)


class Tower(nn.Module):
    """One modality as a module of positional inputs, which the exporter needs; returns unit-norm rows."""

    def __init__(self, model: GaplessModel, modality: str, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.modality = modality
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model.embed(self.modality, dict(zip(self.names, inputs, strict=True)))


def export_onnx(model: GaplessModel, out: Path) -> dict[str, float]:
    """Write one graph per modality with a dynamic batch, and check each against the model with onnxruntime.

    Args:
        model: any `GaplessModel`.
        out: directory to write: `<modality>.onnx`, `onnx.json` (inputs, preprocessing, size), tokenizers.

    Returns:
        modality -> largest absolute difference of an embedding's entry, over batches of several sizes.

    Raises:
        UsageError: onnx or onnxruntime is missing. GaplessError: a graph that differs by more than 1e-4.
    """
    check_onnx()
    model = model.cpu().train(False)
    differences = {}
    described = {}
    with new_directory(out) as partial:
        for modality in model.modalities:
            inputs = sample_inputs(model, modality, max(CHECKED_BATCHES))
            file = partial / f"{modality}.onnx"
            write_graph(Tower(model, modality, list(inputs)), inputs, file)
            differences[modality] = _check_graph(model, modality, file)
            described[modality] = {
                "file": file.name,
                "inputs": list(inputs),
                "preprocessing": model.config.modalities[modality]["input"],
                "largest_difference": differences[modality],
            }
            tokenizer = model.tokenizers.get(modality)
            if tokenizer is not None and hasattr(tokenizer, "save_pretrained"):
                tokenizer.save_pretrained(tokenizer_home(partial, modality))
        about = {"embedding_dim": model.config.embedding_dim, "output": OUTPUT, "modalities": described}
        write_json(partial / "onnx.json", about)
    return differences


def check_onnx() -> None:
    """Raise UsageError where onnx, onnxruntime or onnxscript is not installed."""
    from importlib.util import find_spec

    for package in ("onnx", "onnxruntime", "onnxscript"):
        if find_spec(package) is None:
            raise missing_extra(package, "onnx")


def sample_inputs(model: GaplessModel, modality: str, num_rows: int) -> dict[str, Tensor]:
    """Preprocessed inputs of made-up rows, the same for the same number of rows."""
    preprocessor = model.preprocessor(modality)
    raws = preprocessor.sample(num_rows, np.random.default_rng(num_rows))
    return preprocessor.collate([preprocessor.prepare(raw) for raw in raws])


def write_graph(tower: Tower, inputs: Mapping[str, Tensor], file: Path) -> None:
    """Export a graph with a dynamic batch axis; the axis of tokens is dynamic where the padding follows the batch."""
    is_padded_freely = tower.model.preprocessor(tower.modality).has_free_length
    free = {0: torch.export.Dim.DYNAMIC} | ({1: torch.export.Dim.DYNAMIC} if is_padded_freely else {})
    with quiet_exporter():
        torch.onnx.export(
            tower,
            tuple(inputs.values()),
            file,
            input_names=list(inputs),
            output_names=[OUTPUT],
            dynamic_shapes=(tuple(free for _ in inputs),),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence warnings and logs in the block: the exporter reports its own internals at every step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _check_graph(model: GaplessModel, modality: str, file: Path) -> float:
    """The largest difference between the graph and the model, over batches of several sizes and text lengths."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    largest = 0.0
    for num_rows in CHECKED_BATCHES:
        inputs = sample_inputs(model, modality, num_rows)
        with torch.no_grad():
            expected = model.embed(modality, inputs).numpy()
        computed = session.run([OUTPUT], {name: value.numpy() for name, value in inputs.items()})[0]
        largest = max(largest, float(np.abs(computed - expected).max()))
    if not largest <= ONNX_TOLERANCE:
        raise GaplessError(
            f"the graph of {modality} differs from the model by {largest:.1e}, more than 1e-4; not written"
        )
    return largest


def export_hub(model: GaplessModel, card: str, out: Path) -> None:
    """A directory as a model hub takes it: the model's files and its card. Nothing is sent."""
    with new_directory(out) as partial:
        model.save_pretrained(partial)
        write_text(partial / "README.md", card)


def push(directory: Path, name: str) -> str:
    """Send an exported directory to the hub, as a private repository when it is new.

    Returns:
        the address.

    Raises:
        NeedsNetwork: offline, or the hub cannot be reached. UsageError: the hub refuses (no login, no right).
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    # The base class of the errors of the HTTP client that the installed hub library uses.
    client_error: type[Exception] = HfHubHTTPError.__bases__[0]
    api = HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=directory))
    except OfflineModeIsEnabled:
        raise NeedsNetwork(f"{name} cannot be sent while HF_HUB_OFFLINE is set; {directory} is complete") from None
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        raise UsageError(
            f"the hub refused {name} ({str(error).splitlines()[0]}); log in with 'hf auth login'"
        ) from None
    except (client_error, OSError):
        raise NeedsNetwork(f"the hub cannot be reached; {directory} is complete, send it later") from None
