"""`gapless embed, measure, close, export`: whatever makes or takes embeddings."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gapless.errors import DataRefused, GaplessError, UsageError
from gapless.verbs.verb import Arguments, Outcome, Parser, Verb, ascii_only

USUAL_MODALITIES = ("image", "text")
ALL_ROWS = "all"
HEADLINES = (
    "gap/centroid_distance_unbiased",
    "gap/true_pair_cosine",
    "gap/mixing@10",
    "retrieval/mean/R@1",
    "retrieval/mean/R@10",
    "mixed/R@10",
)


def array_arguments(parser: Parser) -> None:
    """Plain arrays in place of an embeddings directory."""
    group = parser.add_argument_group("plain arrays in place of EMB (one option per modality, row i is one pair)")
    for name in USUAL_MODALITIES:
        group.add_argument(f"--{name}", type=Path, default=None, help=".npy, .npz, .safetensors or .parquet")
    group.add_argument("--groups", type=Path, default=None, help="what must not be split: one line per row")
    group.add_argument("--labels", type=Path, default=None, help="classes: one line per row, empty where missing")


def further_modalities(parser: Parser, words: Sequence[str]) -> None:
    """`--waveform W.npy`: an unknown option that is given an array file is a modality of that name."""
    from gapless.data.arrays import SUFFIXES

    known = parser._option_string_actions
    for option, value in zip(words, [*words[1:], ""], strict=True):
        option, _, attached = option.partition("=")
        if option.startswith("--") and option not in known and (attached or value).lower().endswith(SUFFIXES):
            parser.add_argument(option, type=Path, default=None, help="a further modality")


def modality_files(args: Arguments) -> dict[str, Path]:
    """The arrays that were given, by modality, in the order image, text, others."""
    from gapless.data.arrays import SUFFIXES

    taken = {"groups", "labels", "out", "html"}
    given = {name: value for name, value in vars(args).items() if isinstance(value, Path) and name not in taken}
    return {name: path for name, path in given.items() if name in USUAL_MODALITIES or path.suffix.lower() in SUFFIXES}


def read_given(args: Arguments, sources: Sequence[Path]) -> Any:
    """The embeddings that the options name: directories and files, or one array per modality."""
    from gapless.data.embeddings import read_arrays, read_embeddings

    arrays = modality_files(args)
    if bool(arrays) == bool(sources):
        raise UsageError("give embeddings directories, or one array per modality (--image A.npy --text B.npy)")
    if arrays:
        return read_arrays(arrays, labels=args.labels, groups=args.groups)
    if args.labels or args.groups:
        raise UsageError("--labels and --groups go with plain arrays; embeddings directories hold their own")
    return read_embeddings(*sources)


def embed_arguments(parser: Parser) -> None:
    parser.add_argument(
        "model",
        nargs="+",
        help="a run or model directory; a transformers CLIP or SigLIP directory; local-dir:DIR or NAME@CHECKPOINT of "
        "open_clip; or separate encoders image=DIR text=DIR",
    )
    parser.add_argument("--data", type=Path, default=None, help="manifest, or embeddings for a model of vectors")
    parser.add_argument("--out", type=Path, required=True, help="embeddings directory; an unfinished one is continued")
    parser.add_argument("--split", default=None, help="only these rows; default all")
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32", help="how rows are stored")
    parser.add_argument("--shard", default=None, help="I/N: this process writes part I of N (1 to N)")
    parser.add_argument("--shard_size", type=int, default=8192, help="rows of a shard, the unit of a resume")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    array_arguments(parser)


def embed(args: Arguments) -> Outcome:
    import torch

    from gapless.embed import write_embeddings
    from gapless.models.foreign import load_model

    part, num_parts = part_of(args.shard, os.environ)
    model = load_model(args.model)
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[arg-type]
    source = embed_source(args, model)
    done = write_embeddings(
        model,
        source,
        args.out,
        names=args.model,
        dtype=args.dtype,
        shard_size=args.shard_size,
        part=part,
        num_parts=num_parts,
        batch_size=args.batch_size,
        num_workers=args.workers,
    )
    num_rows = len(source.columns["id"])
    left = "" if done else "\nother parts are still missing; the last one to finish completes the directory"
    value = {"embeddings": str(args.out), "rows": num_rows, "modalities": list(model.modalities), "finished": done}
    return Outcome(value, f"{num_rows:,} rows of {', '.join(model.modalities)}{left}\n{args.out}")


def part_of(shard: str | None, environment: Mapping[str, str]) -> tuple[int, int]:
    """Which part of the work this process has: `--shard I/N`, or its rank under torchrun."""
    if shard is None:
        return int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UsageError(f"--shard is I/N with I from 1 to N, got {shard!r}")
    return int(index) - 1, int(count)


def embed_source(args: Arguments, model: Any) -> Any:
    from gapless.data.embeddings import PLAN_FILE
    from gapless.data.manifest import Manifest
    from gapless.embed import Source

    if args.data is not None and not modality_files(args) and not (args.data / PLAN_FILE).exists():
        manifest = Manifest.read(args.data)
        return Source.of_manifest(model, manifest.select(args.split) if args.split else manifest)
    embeddings = read_given(args, [args.data] if args.data else [])
    return Source.of_embeddings(model, embeddings.select(args.split) if args.split else embeddings)


def measure_arguments(parser: Parser) -> None:
    parser.add_argument("source", nargs="*", type=Path, help="embeddings directories or files; several are read as one")
    parser.add_argument("--split", default=None, help="which rows; default test where there is one, else all ('all')")
    parser.add_argument("--label", default=None, help="which column of labels; default the first")
    parser.add_argument("--num_bootstrap", type=int, default=1000, help="resamples of groups for the intervals, or 0")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap, the folds and k-means")
    parser.add_argument("--html", type=Path, default=None, help="also write an interactive map")
    parser.add_argument("--data", type=Path, default=None, help="manifest, for the map's captions and thumbnails")
    parser.add_argument("--out", type=Path, default=None, help="also write a directory that 'gapless report' reads")
    array_arguments(parser)


def measure(args: Arguments) -> Outcome:
    from gapless.study.renderings import figures_to_terminal

    embeddings = read_given(args, args.source)
    split = args.split or ("test" if embeddings.splits and "test" in embeddings.splits else ALL_ROWS)
    rows = embeddings if split == ALL_ROWS else embeddings.select(split)
    results = measure_rows(rows, args.label, args.num_bootstrap, args.seed) | {"split": split}
    if args.html:
        write_measure_map(args, rows, results)
    if args.out:
        write_measure_directory(args.out, rows, results)
    written = "".join(f"\n{path}" for path in (args.html, args.out) if path)
    head = f"{results['n']:,} pairs, gallery {results['gallery_size']:,}, split {split}"
    return Outcome(results, f"{head}\n\n{figures_to_terminal(results['figures'], ascii_only())}{written}")


def measure_rows(rows: Any, label: str | None, num_bootstrap: int, seed: int) -> dict[str, Any]:
    """All figures of an `EmbeddingSet`, in the form of `results.json`."""
    from gapless.errors import unknown_name
    from gapless.metrics.measure import measure as measure_figures
    from gapless.train.evaluate import versions

    if label is not None and label not in rows.labels:
        raise unknown_name("label", label, rows.labels)
    name = label or next(iter(rows.labels), None)
    sizes = {modality: matrix.shape[1] for modality, matrix in rows.embeddings.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{modality} {size}" for modality, size in sizes.items())
        raise DataRefused(f"the modalities have no space in common ({listed}); 'gapless close' makes one")
    try:
        figures = measure_figures(
            rows.embeddings,
            labels=None if name is None else rows.labels[name],
            groups=rows.groups,
            captions=rows.captions,
            num_bootstrap=num_bootstrap,
            seed=seed,
        )
    except GaplessError:
        raise
    except ValueError as error:  # what a caller in Python did wrong is here what the data hold
        raise DataRefused(str(error)) from None
    return {
        "n": figures.pop("n"),
        "gallery_size": figures.pop("gallery_size"),
        "figures": figures,
        "seed": seed,
        "versions": versions(),
        "data": {
            **(rows.info.get("data") or {"source": rows.info.get("source")}),
            "groups": len(set(rows.groups)) if rows.groups else None,
            "label": name,
        },
    }


def write_measure_map(args: Arguments, rows: Any, results: Mapping[str, Any]) -> None:
    from gapless.data.manifest import Manifest
    from gapless.study.map import write_map

    recorded = (rows.info.get("data") or {}).get("manifest")
    path = args.data or (Path(recorded) if recorded and Path(recorded).exists() else None)
    write_map(
        args.html,
        rows.embeddings,
        results,
        ids=rows.ids,
        captions=rows.captions,
        labels=rows.labels or None,
        manifest=Manifest.read(path) if path else None,
        title=", ".join(str(source) for source in args.source) or "embeddings",
    )


def write_measure_directory(out: Path, rows: Any, results: Mapping[str, Any]) -> None:
    """`results.json`, and the first pairs for the report's pictures."""
    import json

    import numpy as np
    from safetensors.numpy import save

    from gapless.files import new_directory, write_bytes, write_json
    from gapless.train.evaluate import MAX_LATENT_PAIRS

    some = {name: np.asarray(matrix[:MAX_LATENT_PAIRS], dtype=np.float32) for name, matrix in rows.embeddings.items()}
    with new_directory(out) as partial:
        write_json(partial / "results.json", results)
        ids = json.dumps(rows.ids[:MAX_LATENT_PAIRS])
        write_bytes(partial / "latent.safetensors", save(some, metadata={"ids": ids}))


def close_arguments(parser: Parser) -> None:
    from gapless.train.adapter import AdapterSettings
    from gapless.train.close import ADAPTER, CLOSE_METHODS
    from gapless.train.recipes import METHODS

    parser.add_argument("source", nargs="*", type=Path, help="embeddings directories or files; several are read as one")
    parser.add_argument("--out", type=Path, required=True, help="model directory to write")
    parser.add_argument("--method", default=ADAPTER, help=f"one of {', '.join(CLOSE_METHODS)}")
    parser.add_argument("--loss", default="gapless", help=f"of the adapter: one of {', '.join(METHODS)}")
    parser.add_argument("--seed", type=int, default=0)
    array_arguments(parser)
    parser.add_class_arguments(AdapterSettings, "adapter")


def close_defaults(args: Arguments) -> dict[str, Any]:
    """The adapter's settings with the loss that `--loss` names; single --adapter options then override them."""
    from gapless.train.adapter import adapter_settings

    settings = adapter_settings(args.loss)
    values = {f"adapter.{f.name}": getattr(settings, f.name) for f in fields(settings) if f.name != "loss"}
    return values | {f"adapter.loss.{f.name}": getattr(settings.loss, f.name) for f in fields(settings.loss)}


def close(args: Arguments) -> Outcome:
    from gapless.files import check_new_directory, read_json
    from gapless.train.adapter import AdapterSettings
    from gapless.train.close import close_gap
    from gapless.train.recipes import LossConfig

    check_new_directory(args.out)
    rows = read_given(args, args.source)
    given = vars(args.adapter)
    settings = AdapterSettings(**{**given, "loss": LossConfig(**vars(args.adapter.loss))})
    frozen, note = frozen_model(rows.info)
    close_gap(
        rows.embeddings,
        rows.groups,
        settings,
        args.method,
        args.seed,
        out=args.out,
        ids=rows.ids,
        splits=rows.splits,
        captions=rows.captions,
        frozen=frozen,
        data=rows.info.get("data") or {"source": rows.info.get("source")},
    )
    results = read_json(args.out / "results.json")
    value = {"model": str(args.out), "takes": "raw inputs" if frozen else "vectors", **results}
    return Outcome(value, f"{before_and_after(results)}\n{note}\n{args.out}")


def frozen_model(info: Mapping[str, Any]) -> tuple[Any, str]:
    """The model that made the embeddings, where it is known and still the same; and a line that says which."""
    from gapless.models.foreign import fingerprint_of, load_model

    known = [part.get("model") for part in info.get("parts", [info])]
    if not known[0] or any(one != known[0] for one in known):
        return None, "the model takes embeddings (nothing is known of one encoder that made them)"
    source = " ".join(known[0]["source"])
    try:
        model = load_model(known[0]["source"])
    except GaplessError as error:
        return None, f"the model takes embeddings: {source} cannot be loaded ({error})"
    if fingerprint_of(model) != known[0]["fingerprint"]:
        return None, f"the model takes embeddings: {source} is no longer the model that made them"
    return model, f"the model takes raw inputs: {source} is inside, frozen"


def before_and_after(results: Mapping[str, Any]) -> str:
    """The figures that closing is about, on the validation part."""
    from gapless.study.renderings import figure_text

    lines = [f"{results['n']:,} held-back pairs{'':<18}before    after"]
    for key in HEADLINES:
        before = figure_text((results["before"] or {}).get(key))
        lines.append(f"{key:<34}{before:>8} {figure_text(results['figures'][key]):>8}")
    return "\n".join(lines)


VERBS = {
    "embed": Verb("a model over a manifest -> embeddings", embed_arguments, embed, None, further_modalities),
    "measure": Verb("every figure of any embeddings", measure_arguments, measure, None, further_modalities),
    "close": Verb("close the gap of frozen embeddings", close_arguments, close, close_defaults, further_modalities),
}
