"""Closing the gap of frozen embeddings: small heads on cached rows, fitted in closed form or trained with the loss.

    close_gap({"image": z, "text": w}, groups, out=Path("closed"))
    GaplessModel.from_pretrained("closed").encode("image", z)

The result is a model directory like any other: `vector` encoders take the cached rows, or, where the frozen model that
made them is given, its encoders with their heads continued.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from gapless.closing.closed_forms import CLOSED_FORMS
from gapless.closing.trained_heads import (
    AdapterSettings,
    Pairs,
    adapter_settings,
    fitted_maps,
    load_maps,
    loss_name,
    train_adapter,
    vector_modalities,
)
from gapless.core.captions import caption_codes
from gapless.core.errors import DataRefused, UsageError, unknown_name
from gapless.core.files import new_directory, write_json
from gapless.inference.embed import embed_dataset
from gapless.metrics.inputs import MIN_ROWS, check_embeddings, group_index, item_classes
from gapless.metrics.measure import Part, measure
from gapless.models.aligner import GaplessConfig, GaplessModel
from gapless.training.evaluate import versions
from gapless.training.run import TRAIN, VALIDATION, plain

logger = logging.getLogger(__name__)

ADAPTER = "adapter"
CLOSE_METHODS = (ADAPTER, *CLOSED_FORMS)
MAX_VALIDATION_ROWS = 2000  # evaluation costs the square of the rows
MIN_GROUPS = 4
FIGURES: tuple[Part, ...] = ("gap", "retrieval", "mixed")


def close_gap(
    embeddings: Mapping[str, Any],
    groups: Any = None,
    settings: AdapterSettings | None = None,
    method: str = ADAPTER,
    seed: int = 0,
    *,
    out: Path,
    ids: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    positives: Any = None,
    frozen: GaplessModel | None = None,
    data: Mapping[str, Any] | None = None,
) -> GaplessModel:
    """Fit heads that close the gap of cached embeddings, and write them as a model directory.

    Args:
        embeddings: modality -> [pair, dim] floats, rows aligned; dims may differ, norms do not matter.
        groups: [pair] what must not be split between training and validation; default: every pair its own.
        settings: of the adapter; default `adapter_settings()`.
        method: adapter, center or procrustes.
        seed: of the weights, the order and the split.
        out: directory to write: the model, `metrics.jsonl` of the training, `results.json` with the figures of the
            validation part before and after.
        ids: [pair] names of the rows.
        splits: [pair]; with rows of `train` among them only those train, and those of `validation` validate.
        captions: [pair]; with `loss.mask_duplicates` the same ones (see `gapless.core.captions`) are positives of each
            other; default: equal rows of the anchor.
        positives: [pair] what each row shows; in place of `captions`, rows of one item are positives of each other,
            and they count for each other in `lenient_R@K`.
        frozen: the model that made the embeddings; its encoders and heads go into the result.
        data: what `results.json` says about the data.

    Raises:
        UsageError: an unknown method, head or modality, an output directory in use.
        DataRefused: row counts that differ, rows of NaN or zeros, too few groups.
    """
    if method not in CLOSE_METHODS:
        raise unknown_name("method", method, CLOSE_METHODS)
    settings = settings or adapter_settings()
    rows = check_pairs(embeddings)
    anchor = settings.anchor or ("text" if "text" in rows else list(rows)[-1])
    if anchor not in rows:
        raise unknown_name("anchor modality", anchor, rows)
    num_rows = len(rows[anchor])
    index = group_index(groups, num_rows).numpy()
    train, validation = split_rows(index, splits, settings.validation_share, seed)
    pairs = Pairs(
        embeddings=rows,
        ids=[f"row {row}" for row in range(num_rows)] if ids is None else list(ids),
        train=train,
        validation=validation,
        positives=(
            positives_of(captions if captions is not None else rows[anchor])
            if positives is None
            else item_classes(positives, num_rows).numpy()
        ),
    )
    settings = replace(settings, anchor=anchor)
    with new_directory(out) as partial:
        if method == ADAPTER:
            model = train_adapter(pairs, settings, seed, partial)
        else:
            model = fitted_model(pairs, method, anchor)
        results = results_of(pairs, model, pairs.positives[validation] if positives is not None else None)
        results |= {"method": method, "seed": seed, "versions": versions()}
        results["data"] = {**(data or {}), "groups": len(np.unique(index[validation]))}
        results["rows"] = {TRAIN: len(train), VALIDATION: len(validation)}
        results["split_fingerprint"] = split_fingerprint(pairs)
        if method == ADAPTER:
            results |= {"loss": loss_name(settings), "settings": plain(asdict(settings))}
        write_json(partial / "results.json", results)
        model = continued(frozen, model) if frozen is not None else model
        model.save_pretrained(partial)
    return model


def check_pairs(embeddings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Unit-norm fp32 rows of every modality; dims may differ.

    Raises:
        UsageError: fewer than two modalities. DataRefused: rows that cannot be paired or used.
    """
    if len(embeddings) < 2:
        raise UsageError(
            f"a gap needs at least 2 modalities, got {len(embeddings)} ({', '.join(embeddings) or 'none'})"
        )
    counts = {name: len(matrix) for name, matrix in embeddings.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataRefused(f"row i of every modality must be one pair, but the rows differ in number: {listed}")
    (num_rows,) = set(counts.values())
    if num_rows < MIN_ROWS:
        raise DataRefused(f"{num_rows} row(s) cannot be split; at least {MIN_GROUPS} groups are needed")
    return {
        name: check_embeddings({name: matrix}, minimum=1)[name].float().cpu() for name, matrix in embeddings.items()
    }


def split_rows(
    groups: np.ndarray, splits: Sequence[str] | None, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that train and rows that validate, no group in both.

    The validation rows of `splits`, where there are enough; otherwise a share of the groups that may train.

    Raises:
        DataRefused: too few groups to hold some back.
    """
    random = np.random.default_rng(seed)
    usable = np.arange(len(groups))
    if splits is not None and TRAIN in splits:
        named = np.asarray(splits)
        usable = np.flatnonzero(named == TRAIN)
        validation = np.flatnonzero(named == VALIDATION)
        if len(validation) >= MIN_ROWS:
            return usable, np.sort(random.permutation(validation)[:MAX_VALIDATION_ROWS])
        if len(validation):
            logger.warning(
                f"{len(validation)} validation row is too few to compare rows with each other: "
                f"a share of the {TRAIN} rows is held back instead"
            )
    present, sizes = np.unique(groups[usable], return_counts=True)
    if len(present) < MIN_GROUPS:
        raise DataRefused(
            f"{len(usable)} rows in {len(present)} group(s) cannot be split into training and validation; "
            f"at least {MIN_GROUPS} groups are needed"
        )
    order = random.permutation(len(present))
    wanted = min(share * len(usable), MAX_VALIDATION_ROWS)
    num_held = int(np.searchsorted(np.cumsum(sizes[order]), wanted)) + 1
    held = present[order[: min(max(num_held, 2), len(present) - 2)]]
    is_held = np.isin(groups[usable], held)
    return usable[~is_held], usable[is_held]


def split_fingerprint(pairs: Pairs) -> str:
    """sha256 of which rows trained and which were held back."""
    parts = [[pairs.ids[row] for row in rows] for rows in (pairs.train, pairs.validation)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def positives_of(rows: Sequence[str] | Tensor) -> np.ndarray:
    """Integers that are equal where the captions, or the rows of a matrix, are the same."""
    if isinstance(rows, Tensor):
        # One text in two batches differs in the last bits; a few projections, rounded, hardly ever fall apart by that.
        projections = np.random.default_rng(0).standard_normal((rows.shape[1], 4))
        number: dict[Any, int] = {}
        keys = map(tuple, np.round(rows.numpy() @ projections, 4).tolist())
        return np.array([number.setdefault(key, len(number)) for key in keys])
    return np.array(caption_codes(rows))


def results_of(pairs: Pairs, model: GaplessModel, positives: np.ndarray | None) -> dict[str, Any]:
    """The figures of the validation part: `before` where the dims allow it, `figures` after."""
    held = pairs.part(pairs.validation)
    known: dict[str, Any] = {"include": FIGURES, "positives": positives}
    after = measure(embed_dataset(model, pairs.dataset(pairs.validation), batch_size=4096), **known)
    comparable = len({matrix.shape[1] for matrix in held.values()}) == 1
    return {
        "n": after.pop("n"),
        "gallery_size": after.pop("gallery_size"),
        "split": VALIDATION,
        "before": {key: value for key, value in measure(held, **known).items() if "/" in key} if comparable else None,
        "figures": after,
    }


def fitted_model(pairs: Pairs, method: str, anchor: str) -> GaplessModel:
    """A model whose heads are the closed-form maps."""
    maps = fitted_maps(pairs, method, anchor)
    size = maps[anchor].rotation.shape[1]
    heads: dict[str, list[dict[str, Any]]] = {
        name: [{"kind": "unit_norm"}, {"kind": "affine", "size": size}] for name in maps
    }
    model = GaplessModel(GaplessConfig(vector_modalities(pairs, heads), size, loss={"anchor": anchor}))
    load_maps(model, maps)
    return model.train(False)


def continued(frozen: GaplessModel, adapter: GaplessModel) -> GaplessModel:
    """The frozen model with its heads continued by the adapter's layers: raw inputs to the closed space."""
    modalities = {}
    for name, spec in adapter.config.modalities.items():
        own = frozen.config.modalities[name]
        modalities[name] = {
            **own,
            "encoder": {**own["encoder"], "trainable": False},
            "head": [*own.get("head", [{"kind": "linear", "size": frozen.config.embedding_dim}]), *spec["head"]],
        }
    encoders = {name: frozen.encoders[name].requires_grad_(False) for name in modalities}
    config = GaplessConfig(modalities, adapter.config.embedding_dim, adapter.config.loss)
    model = GaplessModel(config, encoders)
    for name in modalities:
        model.heads[name] = nn.Sequential(*frozen.heads[name].children(), *adapter.heads[name].children())
    assert model.loss is not None
    assert adapter.loss is not None
    model.loss.load_state_dict(adapter.loss.state_dict())
    model.tokenizers = {name: tokenizer for name, tokenizer in frozen.tokenizers.items() if name in modalities}
    return model.train(False)
