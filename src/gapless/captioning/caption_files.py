"""Caption files: JSONL with a caption and its score per line, complete or absent; an interrupted run continues.

`OUT` is written when every line is there. Until then the lines are in `OUT.partial`, and the same command continues
after the last complete batch, so that the result has the bytes of an uninterrupted run. `OUT.json` beside it says how
the captions were made. Every line holds the notice, so that a copied line keeps it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Subset

from gapless.captioning.captioner import Captioner
from gapless.captioning.consensus import NearTexts
from gapless.captioning.data import feature_batches
from gapless.captioning.generation import NOTICE, GenerationSettings, captions_from, with_new_settings
from gapless.captioning.route import IMAGE
from gapless.captioning.trust import Trust, add_trust
from gapless.captioning.voting import captions_by_vote
from gapless.core.errors import DataRefused, UsageError, listed
from gapless.core.files import read_object, remove_leftovers, sha256_of, strict_json, sync_path, write_json
from gapless.core.locks import only_writer
from gapless.core.plan import check_same
from gapless.images.pixels import verify_image
from gapless.inference.pairs import PairDataset, Sample

Line = dict[str, Any]


class ImageFiles(Dataset[Sample]):
    """A dataset of single image files; the id of a file is its path as given."""

    def __init__(self, paths: Sequence[Path], model: Captioner) -> None:
        self.ids = [str(path) for path in paths]
        self.prepare = model.preprocessor(IMAGE).prepare

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> Sample:
        return {"id": self.ids[row], IMAGE: self.prepare(Path(self.ids[row]))}

    def described(self) -> list[dict[str, str]]:
        """The id and the sha256 of each file, in their order."""
        return [{"id": id, "sha256": sha256_of(Path(id))} for id in self.ids]


def readable(paths: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    """The images that can be decoded, and path -> reason for the others."""
    good, bad = [], {}
    for path in paths:
        try:
            verify_image(path.read_bytes())
            good.append(path)
        except OSError as error:
            bad[str(path)] = error.strerror or str(error)
        except DataRefused as error:
            bad[str(path)] = str(error)
    return good, bad


def generate_lines(
    model: Captioner,
    dataset: Dataset[Any],
    settings: GenerationSettings,
    batch_size: int = 64,
    num_workers: int | None = None,
    progress: str | None = None,
    trust: Trust | None = None,
    near: NearTexts | None = None,
) -> Any:
    """Batch after batch of lines `{"id", "caption", "score", "method", "notice"}`, in the dataset's order.

    A line of a captioner that does not write the text of an image also has `from`, the sources that the row has, and
    `to`. With `trust` a line also has what it says beside captions; `near` are training texts that vote on them.
    """
    rows = dataset.dataset if isinstance(dataset, Subset) else dataset
    sources = (IMAGE,) if isinstance(rows, ImageFiles) else None
    for ids, features, used in feature_batches(
        model, dataset, sources, progress, batch_size=batch_size, num_workers=num_workers
    ):
        with torch.inference_mode():
            prefix = model.prefix(*features)
        if near is None:
            captions = captions_from(model, prefix, settings, key=ids[0])
        else:
            captions = captions_by_vote(model, prefix, features[0], settings, near, key=ids[0])
        lines = [
            {
                "id": id,
                "caption": text,
                "score": round(score, 6),
                "method": settings.method,
                **({} if model.route.is_usual else {"from": names, "to": model.route.target}),
                "notice": NOTICE,
            }
            for id, (text, score), names in zip(ids, captions, used, strict=True)
        ]
        yield lines if trust is None else add_trust(lines, features[0], trust)


def write_captions(
    model: Captioner,
    dataset: PairDataset | ImageFiles,
    out: Path,
    settings: GenerationSettings,
    about: Mapping[str, Any],
    batch_size: int = 64,
    num_workers: int | None = None,
    trust: Trust | None = None,
    near: NearTexts | None = None,
) -> None:
    """Caption every row into `out`.

    Args:
        about: facts on the model and the data for `OUT.json`; a file can be continued only with the same facts.
        batch_size: images encoded at once. It must be the same to continue, because rounding depends on it.
        num_workers: processes that read images; None for `usual_readers`.
        trust: what the lines say beside the captions.
        near: training texts that vote on the captions.

    Raises:
        UsageError: `out` holds captions of another model, other data or other settings, or another process writes it.
    """
    if not out.name:
        raise UsageError(f"--out is a JSONL file to write, got {str(out)!r}")
    plan = {
        **about,
        **({} if trust is None else trust.as_json()),
        **({} if near is None else near.as_json()),
        "settings": asdict(settings),
        "batch_size": batch_size,
        "rows": len(dataset),
        "notice": NOTICE,
    }
    beside, partial = _beside_of(out), out.with_name(f"{out.name}.partial")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent} does not exist; make it or choose another --out")
    with only_writer(out.parent, f".{out.name}.lock"):
        _check_plan(out, beside, partial, plan)
        if out.exists():
            return
        remove_leftovers(beside.parent, beside.name)
        write_json(beside, plan)
        done = _whole_lines(partial, dataset.ids) // batch_size * batch_size
        lines = partial.read_bytes().split(b"\n")[:done] if done else []
        partial.write_bytes(b"".join(line + b"\n" for line in lines))
        rest = Subset(dataset, range(done, len(dataset)))
        with partial.open("a", encoding="utf-8") as stream:
            for batch in generate_lines(model, rest, settings, batch_size, num_workers, "caption", trust, near):
                stream.writelines(strict_json(line, ensure_ascii=False) + "\n" for line in batch)
                stream.flush()
        sync_path(partial)
        partial.rename(out)
        sync_path(out.parent)


def _beside_of(out: Path) -> Path:
    """The path of the JSON file that says how a caption file was made."""
    return out.with_name(f"{out.name}.json")


def how_made(path: Path) -> dict[str, Any]:
    """How a caption file was made, from the JSON file beside it; empty for a file of another program."""
    beside = _beside_of(path)
    return read_object(beside) if beside.exists() else {}


def check_made_from(path: Path, fingerprint: str, split: str) -> None:
    """Raise DataRefused for captions of other data or another split, whose ids may be the same.

    Captions without a JSON file beside them are not checked.
    """
    data = how_made(path).get("data")
    if not isinstance(data, dict) or "fingerprint" not in data:
        return
    if (data["fingerprint"], data.get("split")) != (fingerprint, split):
        raise DataRefused(
            f"{path} was generated from the split {data.get('split')!r} of the data {data['fingerprint']}, and would "
            f"be scored against {split!r} of {fingerprint}; give the same --data and --split, or generate anew"
        )


def _check_plan(out: Path, beside: Path, partial: Path, plan: Mapping[str, Any]) -> None:
    """Raise UsageError when the output holds something else; the files of a run that wrote no line are overwritten."""
    there = [path for path in (out, beside, partial) if path.exists()]
    advice = f"choose another --out or remove {' and '.join(map(str, there))}"
    if there and (out.is_dir() or not beside.exists()):
        raise UsageError(f"{out} is in use; {advice}")
    before = read_object(beside) if there else plan
    if not out.exists() and before.get("notice") == NOTICE and not _has_line(partial):
        return
    if isinstance(before.get("settings"), dict):
        before = {**before, "settings": with_new_settings(before["settings"])}
    what = f"{out} holds captions of another model, other data or settings"
    check_same(before, json.loads(json.dumps(plan)), what, advice)


def _has_line(partial: Path) -> bool:
    return partial.exists() and b"\n" in partial.read_bytes()


def _whole_lines(partial: Path, ids: Sequence[str]) -> int:
    """How many lines at the start of an interrupted file are complete and of these rows, in their order."""
    if not partial.exists():
        return 0
    count = 0
    for id, line in zip(ids, partial.read_bytes().split(b"\n")[:-1], strict=False):
        try:
            if json.loads(line)["id"] != id:
                break
        except (ValueError, KeyError, TypeError, RecursionError):
            break
        count += 1
    return count


def read_captions(path: Path) -> dict[str, Line]:
    """The lines of a caption file by id; lines of any program with `id` and `caption` are read.

    Raises:
        UsageError: no such file. DataRefused: lines that are not captions, or ids that come more than once;
            counted, the first ten named.
    """
    if not path.is_file():
        partial = path.with_name(f"{path.name}.partial")
        unfinished = "it is not finished: run the same 'gapless caption generate' again"
        more = unfinished if partial.exists() else "'gapless caption generate' writes such files"
        raise UsageError(f"{path} does not exist; {more}")
    captions: dict[str, Line] = {}
    broken: list[int] = []
    twice: dict[str, None] = {}
    try:
        texts = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataRefused(f"{path} is not UTF-8 text ({error})") from None
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        parsed = _caption_line(text)
        if parsed is None:
            broken.append(number)
            continue
        id, line = parsed
        if id in captions:
            twice[id] = None
        else:
            captions[id] = line
    if broken:
        form = '{"id": ..., "caption": ...} with a text and, if any, a finite score'
        raise DataRefused(f"{path}: {len(broken)} lines are not {form} (line {listed(broken)})")
    if twice:
        raise DataRefused(f"{path}: {len(twice)} ids come more than once ({listed(list(twice))})")
    if not captions:
        raise DataRefused(f"{path} holds no captions")
    return captions


def _caption_line(text: str) -> tuple[str, Line] | None:
    """The id and the values of a line; None for a line without a caption, or with values that JSON cannot hold."""
    try:
        line = json.loads(text)
        id = str(line["id"])
        line["caption"].encode()  # raises for half of a surrogate pair
        json.dumps(line.get("score"), allow_nan=False)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return id, line
