"""`gapless embed, measure`: embeddings of any model, and every figure of them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gapless.cli.arrays import array_arguments, further_modalities, modality_files, read_given
from gapless.cli.verb import Arguments, Outcome, Parser, Verb, ascii_only
from gapless.core.errors import DataRefused, GaplessError, UsageError

ALL_ROWS = "all"


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
    parser.add_argument(
        "--ray", default=None, help="address of a Ray cluster, 'auto', or 'local' for this machine's cores"
    )
    parser.add_argument("--shard_size", type=int, default=8192, help="rows of a shard, the unit of a resume")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    array_arguments(parser)


def embed(args: Arguments) -> Outcome:
    import torch

    from gapless.inference.embed import write_embeddings
    from gapless.models.foreign import load_model

    if args.ray and args.shard:
        raise UsageError("--ray hands out the shards itself; leave --shard away")
    part, num_parts = part_of(args.shard, os.environ)
    check_embeddings_place(args.out)
    model = load_model(args.model)
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[arg-type]
    source = embed_source(args, model)
    options = {
        "names": args.model,
        "dtype": args.dtype,
        "shard_size": args.shard_size,
        "batch_size": args.batch_size,
    }
    if args.ray:
        from gapless.inference.embed_ray import write_embeddings_on_ray

        done = write_embeddings_on_ray(args.ray, model, source, args.out, **options)
    else:
        own = {"part": part, "num_parts": num_parts, "num_workers": args.workers}
        done = write_embeddings(model, source, args.out, **options, **own)
    num_rows = len(source.columns["id"])
    left = "" if done else "\nother parts are still missing; the last one to finish completes the directory"
    value = {"embeddings": str(args.out), "rows": num_rows, "modalities": list(model.modalities), "finished": done}
    return Outcome(value, f"{num_rows:,} rows of {', '.join(model.modalities)}{left}\n{args.out}", notes=source.notes)


def check_embeddings_place(out: Path) -> None:
    """Refuse, before a model is loaded, a directory in which no embeddings can be begun or continued."""
    from gapless.core.files import check_directory, check_new_directory
    from gapless.embeddings.store import PLAN_FILE

    check_directory(out)
    if out.is_dir() and not (out / PLAN_FILE).exists() and not all(e.name.startswith(".") for e in out.iterdir()):
        check_new_directory(out)


def part_of(shard: str | None, environment: Mapping[str, str]) -> tuple[int, int]:
    """Which part of the work this process has: `--shard I/N`, or its rank under torchrun."""
    if shard is None:
        return int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UsageError(f"--shard is I/N with I from 1 to N, got {shard!r}")
    return int(index) - 1, int(count)


def embed_source(args: Arguments, model: Any) -> Any:
    from gapless.embeddings.store import PLAN_FILE
    from gapless.inference.embed import Source
    from gapless.manifest.manifest import Manifest

    if args.data is not None and not modality_files(args) and not (args.data / PLAN_FILE).exists():
        manifest = Manifest.read(args.data)
        return Source.of_manifest(model, manifest.select(args.split) if args.split else manifest)
    embeddings = read_given(args, [args.data] if args.data else [])
    return Source.of_embeddings(model, embeddings.select(args.split) if args.split else embeddings)


def measure_arguments(parser: Parser) -> None:
    parser.add_argument("source", nargs="*", type=Path, help="embeddings directories or files; several are read as one")
    parser.add_argument("--split", default=None, help="which rows; default test where there is one, else all ('all')")
    parser.add_argument(
        "--label", default=None, help="which column of labels; default the first of two classes or more"
    )
    parser.add_argument("--num_bootstrap", type=int, default=1000, help="resamples of groups for the intervals, or 0")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap, the folds and k-means")
    parser.add_argument("--html", type=Path, default=None, help="also write an interactive map")
    parser.add_argument("--data", type=Path, default=None, help="manifest, for the map's captions and thumbnails")
    parser.add_argument("--out", type=Path, default=None, help="also write a directory that 'gapless report' reads")
    array_arguments(parser)


def measure(args: Arguments) -> Outcome:
    from gapless.study.renderings import figures_to_terminal

    check_places(args)
    embeddings = read_given(args, args.source)
    split = args.split or ("test" if embeddings.splits and "test" in embeddings.splits else ALL_ROWS)
    rows = embeddings if split == ALL_ROWS else embeddings.select(split)
    label = args.label or ("label" if args.labels else None)  # a file of one class is refused, not passed over
    results = measure_rows(rows, label, args.num_bootstrap, args.seed) | {"split": split}
    if args.out:
        write_measure_directory(args.out, rows, results)
    if args.html:
        write_measure_map(args, rows, results)
    written = "".join(f"\n{path}" for path in (args.html, args.out) if path)
    head = f"{results['n']:,} pairs, gallery {results['gallery_size']:,}, split {split}"
    text = f"{head}\n\n{figures_to_terminal(results['figures'], ascii_only())}{written}"
    notes = [*embeddings.notes, *notes_on_rows(embeddings, rows, split), *notes_on_label(rows, label)]
    return Outcome(results, text, notes=notes)


def check_places(args: Arguments) -> None:
    """Refuse what cannot be written before anything is read or computed."""
    from gapless.core.files import check_file, check_new_directory

    if args.out:
        check_new_directory(args.out)
    if args.html:
        check_file(args.html)


def notes_on_rows(embeddings: Any, rows: Any, split: str) -> list[str]:
    """Rows that are left out because they have no split, and a single group for everything."""
    notes = []
    without = sum(not name for name in embeddings.splits or [])
    if without and split != ALL_ROWS:
        notes = [f"{without:,} of {len(embeddings):,} rows have no split and are left out; --split all takes every row"]
    if rows.groups and len(set(rows.groups)) == 1:
        notes.append(f"every row is of the group {rows.groups[0]!r}: there are no intervals, and no probe")
    return notes


def notes_on_label(rows: Any, label: str | None) -> list[str]:
    from gapless.metrics.labels import described_label

    sentence = None if label is not None else described_label(main_label(rows), label_columns(rows))
    return [sentence] if sentence else []


def main_label(rows: Any) -> str | None:
    """The column of labels that grouping figures are about where none is named."""
    from gapless.metrics.labels import telling_label

    return telling_label(label_columns(rows), rows.groups)


def label_columns(rows: Any) -> dict[str, Any]:
    """The labels without the column that says which rows show one item, under whatever name."""
    from gapless.core.values import cells_of, text_of

    def is_positives(values: Any) -> bool:
        try:
            return rows.positives is not None and [text_of(cell) for cell in cells_of(values)] == rows.positives
        except ValueError:
            return False

    return {name: values for name, values in rows.labels.items() if not is_positives(values)}


def measure_rows(rows: Any, label: str | None, num_bootstrap: int, seed: int) -> dict[str, Any]:
    """All figures of an `EmbeddingSet`, in the form of `results.json`."""
    from gapless.core.errors import unknown_name
    from gapless.metrics.labels import label_codes
    from gapless.metrics.measure import measure as measure_figures
    from gapless.training.evaluate import versions

    if label is not None and label not in rows.labels:
        raise unknown_name("label", label, rows.labels)
    name = label or main_label(rows)
    sizes = {modality: matrix.shape[1] for modality, matrix in rows.embeddings.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{modality} {size}" for modality, size in sizes.items())
        raise DataRefused(f"the modalities have no space in common ({listed}); 'gapless close' makes one")
    if name is not None:
        label_codes(f"label {name!r}", rows.labels[name], len(rows))  # refused by its name, and before the work
    try:
        figures = measure_figures(
            rows.embeddings,
            labels=None if name is None else rows.labels[name],
            groups=rows.groups,
            captions=rows.captions,
            positives=rows.positives,
            num_bootstrap=num_bootstrap,
            seed=seed,
        )
    except GaplessError:
        raise
    except ValueError as error:  # what a caller in Python did wrong is here what the data hold
        raise DataRefused(f"{rows.origin}: {error}") from None
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
            **({"positives": len(set(rows.positives))} if rows.positives else {}),
        },
    }


def write_measure_map(args: Arguments, rows: Any, results: Mapping[str, Any]) -> None:
    from gapless.manifest.manifest import Manifest
    from gapless.study.map import write_map

    recorded = (rows.info.get("data") or {}).get("manifest")
    path = args.data or (Path(recorded) if recorded and Path(recorded).exists() else None)
    write_map(
        args.html,
        rows.embeddings,
        results,
        ids=rows.ids,
        captions=rows.captions,
        labels=drawn_labels(rows) or None,
        manifest=Manifest.read(path) if path else None,
        title=", ".join(str(source) for source in args.source) or "embeddings",
    )


def drawn_labels(rows: Any) -> dict[str, Any]:
    """The labels of which every cell is one value: a map cannot show images or lists."""
    from gapless.core.values import names_of

    shown = {}
    for name, values in rows.labels.items():
        try:
            shown[name] = names_of(name, values)
        except DataRefused:
            continue
    return shown


def write_measure_directory(out: Path, rows: Any, results: Mapping[str, Any]) -> None:
    """`results.json`, and the first pairs for the report's pictures."""
    import json

    import numpy as np
    from safetensors.numpy import save

    from gapless.core.files import new_directory, write_bytes, write_json
    from gapless.training.evaluate import MAX_LATENT_PAIRS

    some = {name: np.asarray(matrix[:MAX_LATENT_PAIRS], dtype=np.float32) for name, matrix in rows.embeddings.items()}
    with new_directory(out) as partial:
        write_json(partial / "results.json", results)
        ids = json.dumps(rows.ids[:MAX_LATENT_PAIRS])
        write_bytes(partial / "latent.safetensors", save(some, metadata={"ids": ids}))


VERBS = {
    "embed": Verb("a model over a manifest -> embeddings", embed_arguments, embed, None, further_modalities),
    "measure": Verb("every figure of any embeddings", measure_arguments, measure, None, further_modalities),
}
