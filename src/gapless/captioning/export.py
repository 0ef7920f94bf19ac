"""A captioner as two ONNX graphs: what the decoder attends to, and the logits of the next token.

    prefix = session("prefix.onnx").run(None, inputs)[0]              # once for an image
    logits = session("step.onnx").run(None, {"input_ids": ids, "prefix": prefix})[0]      # [pair, vocabulary]

Greedy captions are those of `greedy_ids`: begin with the start token, append the likeliest token, end at the end token.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gapless.captioning.captioner import CAPTION_TOKENIZER, Captioner
from gapless.captioning.generation import NOTICE, GenerationSettings, captions_from
from gapless.captioning.runs import load_captioner
from gapless.core.errors import GaplessError, UsageError
from gapless.core.files import check_new_directory, new_directory, write_json
from gapless.core.results import Result
from gapless.models.export import ONNX_TOLERANCE, check_onnx, quiet_exporter, sample_inputs
from gapless.models.tokenizers import tokenizer_home

PREFIX, STEP = "prefix.onnx", "step.onnx"
CHECKED_ROWS = (1, 2, 3)
Ids = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class ExportedCaptioner(Result):
    """An exported captioner.

    Args:
        export: the directory.
        largest_difference: of the prefix, and of the logits, from the model's.
        captions: how many greedy captions of made-up inputs were compared; all are the same as the model's.
        notice: what captions must not be used for.
    """

    export: Path
    largest_difference: Mapping[str, float]
    captions: int
    notice: str = NOTICE


class _Prefix(nn.Module):
    """From the encoder's inputs by position to what the decoder attends to."""

    def __init__(self, model: Captioner, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model.prefix(*self.model.features(dict(zip(self.names, inputs, strict=True))))


class _Step(nn.Module):
    """From the tokens so far to the logits of the next one."""

    def __init__(self, model: Captioner) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(self, input_ids: Tensor, prefix: Tensor) -> Tensor:
        logits: Tensor = self.decoder(input_ids=input_ids, encoder_hidden_states=prefix, use_cache=False).logits
        return logits[:, -1]


def export_captioner(model: str | Path, *, out: str | Path) -> ExportedCaptioner:
    """Write a captioner as ONNX graphs and check its greedy captions against Python's with onnxruntime.

    Example:
        >>> from gapless.captioning import export_captioner
        >>> export_captioner("captioner", out="onnx").captions                               # doctest: +SKIP
        3

    Args:
        model: caption run or model directory.
        out: directory to write: `prefix.onnx`, `step.onnx`, `onnx.json`, the tokenizer of the captions.

    Raises:
        UsageError: onnx or onnxruntime is missing, no captioner, one of several sources, an output in use.
        GaplessError: graphs whose numbers or captions are not the model's.
    """
    check_onnx()
    place = Path(out)
    check_new_directory(place)
    captioner = load_captioner(Path(model)).cpu()
    if len(captioner.route.sources) > 1:
        raise UsageError(f"{model} joins {captioner.route.names}, and a graph takes one source; export another one")
    (source,) = captioner.route.sources
    with new_directory(place) as partial:
        inputs = sample_inputs(captioner.aligner, source, max(CHECKED_ROWS))
        with torch.no_grad():
            prefix = _Prefix(captioner, list(inputs))(*inputs.values())
        _write(_Prefix(captioner, list(inputs)), inputs, "prefix", partial / PREFIX, tokens=False)
        ids = torch.full((len(prefix), 2), captioner.special_ids()["bos_token_id"])
        _write(_Step(captioner), {"input_ids": ids, "prefix": prefix}, "logits", partial / STEP, tokens=True)
        differences, count = _compared(captioner, source, partial)
        special = captioner.special_ids()
        about = {
            "from": source,
            "to": captioner.route.target,
            "inputs": list(inputs),
            "preprocessing": captioner.aligner.config.modalities[source]["input"],
            "max_tokens": captioner.config.max_tokens,
            **special,
            "files": {"prefix": PREFIX, "step": STEP},
            "largest_difference": differences,
            "notice": NOTICE,
        }
        write_json(partial / "onnx.json", about)
        captioner.tokenizer.save_pretrained(tokenizer_home(partial, CAPTION_TOKENIZER))
    return ExportedCaptioner(place, differences, count)


def _write(module: nn.Module, inputs: Mapping[str, Tensor], output: str, file: Path, *, tokens: bool) -> None:
    free: list[Any] = [{0: torch.export.Dim.DYNAMIC} for _ in inputs]
    if tokens:
        free[0] = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    shapes = tuple(free) if isinstance(module, _Step) else (tuple(free),)
    with quiet_exporter(), torch.no_grad():
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            file,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def greedy_ids(step: Callable[[Ids], Any], num_rows: int, special: Mapping[str, int], max_tokens: int) -> Ids:
    """Greedy token ids, [row, token], of any program that gives the logits of the next token.

    Args:
        step: [row, token] ids so far -> [row, vocabulary] logits.
        special: `bos_token_id`, `eos_token_id` and `pad_token_id`.
        max_tokens: longest caption, its start included.
    """
    ids = np.full((num_rows, 1), special["bos_token_id"], dtype=np.int64)
    ended = np.zeros(num_rows, dtype=bool)
    while ids.shape[1] < max_tokens and not ended.all():
        chosen = np.where(ended, special["pad_token_id"], np.asarray(step(ids)).argmax(axis=1))
        ended |= chosen == special["eos_token_id"]
        ids = np.concatenate([ids, chosen[:, None]], axis=1)
    return ids


def _step_of(graph: Any, prefix: Any) -> Callable[[Ids], Any]:
    """The graph of a step as `greedy_ids` takes it."""

    def step(ids: Ids) -> Any:
        return graph.run(None, {"input_ids": ids, "prefix": prefix})[0]

    return step


def _compared(model: Captioner, source: str, directory: Path) -> tuple[dict[str, float], int]:
    """Largest differences, and the number of captions that were compared.

    Raises:
        GaplessError: numbers that differ by more than 1e-4, or another caption.
    """
    import onnxruntime

    prefix_graph, step_graph = (
        onnxruntime.InferenceSession(directory / file, providers=["CPUExecutionProvider"]) for file in (PREFIX, STEP)
    )
    differences = {"prefix": 0.0, "logits": 0.0}
    count = 0
    for num_rows in CHECKED_ROWS:
        inputs = sample_inputs(model.aligner, source, num_rows)
        prefix = prefix_graph.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
        with torch.no_grad():
            expected = model.prefix(*model.features(inputs))
        step = _step_of(step_graph, prefix)
        ids = greedy_ids(step, num_rows, model.special_ids(), model.config.max_tokens)
        with torch.no_grad():
            logits = _Step(model)(torch.from_numpy(ids), expected).numpy()
        computed = step(ids)
        differences["prefix"] = max(differences["prefix"], float(np.abs(prefix - expected.numpy()).max()))
        differences["logits"] = max(differences["logits"], float(np.abs(computed - logits).max()))
        texts = [" ".join(text.split()) for text in model.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        own = [caption.text for caption in captions_from(model, expected, GenerationSettings("greedy"))]
        if texts != own:
            raise GaplessError("the greedy captions of the graphs are not those of the model; not written")
        count += num_rows
    if not max(differences.values()) <= ONNX_TOLERANCE:
        raise GaplessError(f"the graphs differ from the captioner by {max(differences.values()):.1e}; not written")
    return differences, count
