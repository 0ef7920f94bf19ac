"""Verifies the views of a row of a manifest with modalities, in a worker process, by `check` of their kinds.

A file of a kind other than image is checked where it lies, or as a copy when the manifest holds its files. An item may
be several files (a header and its signal, a folder of slices): `files` of its kind lists them.
"""

import hashlib
import json
import shutil
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from gapless.core import files
from gapless.core.errors import DataRefused, UsageError, one_line
from gapless.images.pixels import ImageRefused
from gapless.manifest.modality_cells import FileView
from gapless.manifest.modality_spec import ModalitySpec
from gapless.manifest.options import ImageOptions
from gapless.manifest.raw_rows import FileSource, contained_path, file_identity
from gapless.manifest.verify import check_image, store_bytes
from gapless.modalities.base import MODALITIES, NUMBERS

MISSING = "missing file"


@dataclass(frozen=True)
class RowViews:
    """What stands in the place of a row's image: the views of all modalities that the row has."""

    specs: Sequence[ModalitySpec]
    views: Mapping[str, Sequence[Any]]

    def items(self) -> list[tuple[ModalitySpec, int, Any]]:
        """(modality, number of the view, view), in the order of the modalities."""
        return [
            (spec, number, view) for spec in self.specs for number, view in enumerate(self.views.get(spec.name, ()))
        ]

    def key(self) -> str:
        """A text that changes whenever the content of a view may have changed."""
        keys = [(spec.name, view_key(spec, view)) for spec, _, view in self.items()]
        return hashlib.sha256(json.dumps(keys).encode()).hexdigest()

    def check(self, name: str, options: ImageOptions, store: Path | None) -> dict[str, Any]:
        """Verify every view.

        Returns:
            `views`: modality -> for each view `sha256` and `facts`, of a file also `file` (its name below the root),
            `stored` (that of its copy, or None), `bytes` and `identity`; or `reason` and `detail` of a refusal.
        """
        checked: dict[str, list[dict[str, Any]]] = {}
        for spec, number, view in self.items():
            label = f"{name}.{spec.name}" if number == 0 else f"{name}.{spec.name}-{number + 1}"
            result = _check_view(spec, view, label, options, store)
            if "reason" in result:
                return {"reason": f"{spec.name}: {result['reason']}", "detail": result["detail"]}
            checked.setdefault(spec.name, []).append(result)
        return {"views": checked}


def view_key(spec: ModalitySpec, view: Any) -> Any:
    """What an interrupted build compares of a view: the key of a file, or the value itself."""
    if not isinstance(view, FileView):
        return view
    if isinstance(view.source, FileSource) and spec.kind != "image":
        return (
            f"{view.source.root.absolute()}|{view.name}|{identity_of(spec.kind, view.source.root / view.source.name)}"
        )
    return view.source.key()


def _check_view(spec: ModalitySpec, view: Any, name: str, options: ImageOptions, store: Path | None) -> dict[str, Any]:
    try:
        if isinstance(view, FileView):
            return (_check_picture if spec.kind == "image" else _check_file)(spec, view, name, options, store)
        facts = MODALITIES[spec.kind].check(list(view) if spec.form == NUMBERS else view, spec.params)
        return {"sha256": digest_of_numbers(view) if spec.form == NUMBERS else None, "facts": facts}
    except UsageError:  # a param that the kind does not take: no row can be read with it
        raise
    except ImageRefused as error:
        reason = MISSING if error.reason == "missing image" and spec.kind != "image" else error.reason
        return {"reason": reason, "detail": error.detail}
    except DataRefused as error:
        # The exceptions of the kinds that read files have a reason to count by.
        reason = getattr(error, "reason", f"no {spec.kind}")
        detail = getattr(error, "detail", one_line(error))
        return {"reason": str(reason), "detail": f"{_shown(view)}{detail}"}
    except MemoryError:
        return {"reason": "too large", "detail": f"{_shown(view)}not enough memory to read it"}
    except Exception as error:  # a library's own; its words may quote a header, so that only its name is passed on
        return {"reason": "unreadable", "detail": f"{_shown(view)}{type(error).__name__}"}


def _shown(view: Any) -> str:
    return f"{view.name}: " if isinstance(view, FileView) else ""


def _check_picture(
    spec: ModalitySpec, view: FileView, name: str, options: ImageOptions, store: Path | None
) -> dict[str, Any]:
    frame = int(spec.params.get("frame", options.frame))
    result = check_image(view.source, name, replace(options, frame=frame), store)
    if "reason" in result:
        return result
    return {
        "file": view.name,
        "stored": result["image"],
        "bytes": result["bytes"],
        "sha256": result["sha256"],
        "identity": str(view.source.key()).rpartition("|")[2],
        "facts": {"width": result["width"], "height": result["height"]},
        "text": result.get("text", False),
    }


def _check_file(
    spec: ModalitySpec, view: FileView, name: str, options: ImageOptions, store: Path | None
) -> dict[str, Any]:
    kind = MODALITIES[spec.kind]
    named = view.name
    if isinstance(view.source, FileSource):
        path, suffix = _contained(view.source, spec.kind)
        named += suffix
        identity = identity_of(spec.kind, path)
        _check_inside(files_of(spec.kind, path), view.source.root, view.name)
        facts = kind.check(path, spec.params)
        stored = None if store is None else _copied(files_of(spec.kind, path), path, store, name)
    else:
        assert store is not None, "content that lies in no file of its own is copied"
        stored = name + "".join(PurePosixPath(view.name).suffixes[-1:])
        content = view.source.read()
        facts = kind.check(content, spec.params)
        path, identity = store / stored, ""
        store_bytes(path, content)
    place = path if store is None or stored is None else store / stored
    return {
        "file": named,
        "stored": stored,
        "bytes": place.stat().st_size if place.is_file() else None,
        "sha256": digest_of(spec.kind, place),
        "identity": identity,
        "facts": facts,
    }


def _contained(source: FileSource, kind: str) -> tuple[Path, str]:
    """(the file or folder of an item, what is added to its name): a name may leave out the kind's suffix."""
    taken = MODALITIES[kind]
    try:
        return contained_path(source.root, source.name, folders=taken.takes_folders), ""
    except ImageRefused as error:
        if error.reason == "missing image" and taken.optional_suffix:
            with suppress(ImageRefused):
                return contained_path(source.root, source.name + taken.optional_suffix), taken.optional_suffix
        raise


def _check_inside(items: Sequence[Path], root: Path, name: str) -> None:
    """Refuse an item of which a file lies outside the root, by a link or because a header names it."""
    real_root = root.resolve()
    if not all(file.is_relative_to(real_root) for file in items):
        raise ImageRefused("path outside the image root", f"{name}: a file of it leads out of the root")


def files_of(kind: str, path: Path) -> list[Path]:
    """The files of an item, links resolved, in a fixed order; those of a folder are those that its kind lists."""
    path = path.resolve()
    named = MODALITIES[kind].files(path) if kind in MODALITIES else [path]
    below = [file for item in named for file in (sorted(files.entries_below(item)) if item.is_dir() else [item])]
    return [file.resolve() for file in below]


def identity_of(kind: str, path: Path) -> str:
    """The identities of an item's files (see `file_identity`); "missing" where one cannot be looked at."""
    try:
        return "+".join(file_identity(file) for file in files_of(kind, path) if not file.is_dir())
    except (OSError, ValueError):  # a `DataRefused` is a ValueError
        return "missing"


def digest_of(kind: str, path: Path) -> str:
    """sha256 of an item: of its file, or of the names and checksums of its files."""
    path = path.resolve()
    items = [file for file in files_of(kind, path) if not file.is_dir()]
    if items == [path]:
        return files.sha256_of(path)
    parent = path if path.is_dir() else path.parent
    lines = [f"{file.relative_to(parent).as_posix()} {files.sha256_of(file)}" for file in items]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def digest_of_numbers(numbers: Sequence[float]) -> str:
    """sha256 of numbers as fp32."""
    return hashlib.sha256(struct.pack(f"<{len(numbers)}f", *numbers)).hexdigest()


def _copied(items: Sequence[Path], path: Path, store: Path, name: str) -> str:
    """Copy an item into the store; several files go into a folder of their own. Returns the copy's name."""
    path = path.resolve()
    if list(items) == [path]:
        stored = name + path.suffix
        (store / stored).parent.mkdir(parents=True, exist_ok=True)
        partial = store / f"{stored}.partial"
        shutil.copyfile(path, partial)
        partial.replace(store / stored)
        return stored
    parent = path if path.is_dir() else path.parent
    shutil.rmtree(store / name, ignore_errors=True)
    for file in items:
        target = store / name / file.relative_to(parent)
        if not file.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return name if path.is_dir() else f"{name}/{path.name}"
