"""Files that run code, or eat memory, in the hands of a careless reader; each control here is such a reader.

The code that they carry writes a canary: a file whose place is part of the payload.
"""

import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

PROTOCOLS = (0, 1, 2, 3, 4, 5)
Careless = Callable[[Path], Any]


class Writes:
    """Unpickling this opens the canary for writing."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.canary), "w")


class Runs(Writes):
    """Unpickling this runs a line of Python."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.canary)!r}, 'w')",)


def python_that_writes(canary: Path) -> str:
    return f"open({str(canary)!r}, 'w').close()\n"


def pickled(canary: Path, protocol: int) -> bytes:
    return pickle.dumps({"image": Runs(canary) if protocol % 2 else Writes(canary)}, protocol)


def torch_file(canary: Path, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save({"weight": torch.zeros(2), "x": Writes(canary)}, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def joblib_file(canary: Path, compress: int = 0) -> bytes:
    stream = io.BytesIO()
    joblib.dump({"image": Writes(canary)}, stream, compress=compress)
    return stream.getvalue()


def object_array(canary: Path, version: tuple[int, int] = (1, 0), structured: bool = False) -> bytes:
    """A .npy whose elements are pickled."""
    array = np.empty(4, dtype=[("a", object)] if structured else object)
    array[:] = [(Writes(canary),)] * 4 if structured else Writes(canary)
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version, allow_pickle=True)
    return stream.getvalue()


def npy_header(header: str, body: bytes = b"") -> bytes:
    """A .npy with any words where its shape is described."""
    padded = header.encode().ljust(117, b" ") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + body


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def npy_of(shape: tuple[int, ...], body: bytes) -> bytes:
    return npy_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}", body)


def bomb(num_bytes: int = 6 << 30) -> bytes:
    """A .npz of a few megabytes that inflates to `num_bytes` of zeros."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("image.npy", "w", force_zip64=True) as member,
    ):
        member.write(npy_of((num_bytes // 64, 16), b""))
        block = bytes(1 << 24)
        for _ in range(num_bytes // len(block)):
            member.write(block)
    return stream.getvalue()


def safetensors_file(header: bytes, body: bytes = bytes(64)) -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def parquet_file(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def parquet_of_python_type(canary: Path) -> bytes:
    """The Python extension types that pyarrow once unpickled when it opened a file (CVE-2023-47248)."""
    marked = {b"ARROW:extension:name": b"arrow.py_extension_type"}
    marked[b"ARROW:extension:metadata"] = pickled(canary, 2)
    field = pa.field("image", pa.binary(), metadata=marked)
    return parquet_file(pa.table([pa.array([pickled(canary, 4)] * 4)], schema=pa.schema([field])))


def parquet_of_pickles(canary: Path) -> bytes:
    return parquet_file(pa.table({"image": [pickled(canary, 4)] * 4, "id": list("abcd")}))


def tar_of(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return stream.getvalue()


def png(width: int = 16, height: int = 16, data: bytes | None = None) -> bytes:
    """A grey PNG, or one whose header promises more than it holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress(b"".join(b"\0" + bytes(width) for _ in range(height))) if data is None else data
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def yaml_tags(canary: Path) -> dict[str, str]:
    """One value each: YAML that makes a careless loader call Python."""
    path, code = json.dumps(str(canary)), json.dumps(f"open({str(canary)!r}, 'w')")
    return {
        "apply open": f"!!python/object/apply:builtins.open [{path}, w]",
        "apply exec": f"!!python/object/apply:builtins.exec [{code}]",
        "apply eval": f"!!python/object/apply:builtins.eval [{code}]",
        "apply system": f"!!python/object/apply:os.system [{json.dumps(f'touch {canary}')}]",
        "apply with args": f"!!python/object/apply:builtins.open {{args: [{path}, w]}}",
        "in a list": f"[1, !!python/object/apply:builtins.exec [{code}]]",
        "as a key": f"{{? !!python/object/apply:builtins.open [{path}, w] : 1}}",
        "verbatim tag": f"!<tag:yaml.org,2002:python/object/apply:builtins.exec> [{code}]",
        "new": f"!!python/object/new:builtins.tuple "
        f"[!!python/object/new:builtins.map [!!python/name:builtins.exec , [{code}]]]",
        "behind an anchor": f"[&a {{x: !!python/object/apply:builtins.exec [{code}]}}, *a]",
    }


def deep_json(depth: int = 200_000) -> str:
    return "[" * depth + "]" * depth


def laughs(depth: int = 9) -> str:
    """A billion of them: every alias holds ten of the one before."""
    lines = ['a0: &a0 ["lol", "lol", "lol", "lol", "lol", "lol", "lol", "lol", "lol", "lol"]']
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, depth)]
    return "\n".join(lines)


# ---- careless readers -----------------------------------------------------------------------------------------------


def unpickle(path: Path) -> Any:
    with path.open("rb") as stream:
        return pickle.load(stream)


def torch_load(path: Path) -> Any:
    with path.open("rb") as stream:
        return torch.load(stream, weights_only=False)


def joblib_load(path: Path) -> Any:
    return joblib.load(path)


def numpy_load(path: Path) -> Any:
    found = np.load(path, allow_pickle=True)
    return {name: found[name] for name in found.files} if hasattr(found, "files") else found


def unpickle_column(path: Path) -> Any:
    return [pickle.loads(value) for value in pq.read_table(path)["image"].to_pylist()]


def unsafe_yaml(path: Path) -> Any:
    import yaml

    return yaml.unsafe_load(path.read_text())


def remote_tokenizer(path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, trust_remote_code=True)


def remote_config(path: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(path, trust_remote_code=True)


def unpickle_members(path: Path) -> Any:
    with tarfile.open(path) as archive:
        names = [name for name in archive.getnames() if "pickle" in name or name.endswith((".pkl", ".pyd", ".pth"))]
        return [pickle.load(archive.extractfile(name)) for name in names]  # type: ignore[arg-type]
