"""Lists the samples of one tar file: which members form a sample, which are not read, where their bytes are.

Members that share a folder and a name up to its first dot form one sample, wherever they are in the tar; for example
all images may come before all texts. A sample with a repeated member is ambiguous and becomes a bad row; WebDataset
raises an error for it too.
"""

import tarfile
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from gapless.core.errors import DataRefused
from gapless.manifest.readers.passed_over import PassedOver, leftover

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "tif", "tiff", "bmp", "gif", "jp2", "dcm")
PICKLE_SUFFIXES = ("pyd", "pkl", "pickle", "pth", "pt", "npy", "npz", "joblib")
TEXT_SUFFIXES = ("txt", "text", "caption", "json")
NUMPY_SUFFIX = "npy"  # read without unpickling, where a modality names the member
MAX_TEXT_BYTES = 1 << 20
MAX_IMAGE_BYTES = 1 << 30
BLOCK = 512


@dataclass(frozen=True)
class Member:
    """A stretch of the tar file."""

    name: str
    offset: int
    size: int


@dataclass
class Sample:
    """The members of one sample by their lower-case suffix ("png", "seg.png"), or why they must not be used."""

    prefix: str
    number: int
    members: dict[str, Member] = field(default_factory=dict)
    fault: tuple[str, str] | None = None

    def listed(self) -> str:
        """The suffixes of the members as text."""
        return ", ".join(f".{suffix}" for suffix in self.members)


def read_samples(path: Path, passed_over: PassedOver, named: frozenset[str] = frozenset()) -> list[Sample]:
    """Every sample of a shard, in the order of their first members; only headers are read.

    Args:
        path: the tar file.
        passed_over: counts members that are in no sample.
        named: suffixes of members that a modality reads as files.

    Raises:
        DataRefused: the shard ends or breaks in the middle; what is lost could not be counted.
    """
    samples: dict[str, Sample] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
                if not member.isdir():
                    _add(samples, member, passed_over, path, named)
            _check_end(tar)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataRefused(
            f"the shard {path} is damaged after {len(samples)} samples, or is no tar file ({error}); get it again"
        ) from None
    return list(samples.values())


def _add(
    samples: dict[str, Sample], member: tarfile.TarInfo, passed_over: PassedOver, path: Path, named: frozenset[str]
) -> None:
    # One spelling of a name: `./a.png` and `a.png`, Windows' backslashes, the decomposed letters of macOS.
    name = unicodedata.normalize("NFC", str(PurePosixPath(member.name.replace("\\", "/"))))
    prefix, suffix = _split_name(name)
    reason = leftover(name) or (None if suffix else "no suffix, so in no sample")
    if reason is not None:
        passed_over.add(reason, f"{path.name}: {member.name}")
        return
    sample = samples.setdefault(prefix, Sample(prefix, len(samples) + 1))
    fault = _member_fault(member, suffix, suffix in named)
    if fault is None and suffix in sample.members:
        fault = "repeated member", f"{member.name[:200]} is there twice: pack the shard anew with one of them"
    sample.fault = sample.fault or fault
    sample.members.setdefault(suffix, Member(member.name, member.offset_data, member.size))


def _split_name(name: str) -> tuple[str, str]:
    """("folder/0001", "seg.png") of "folder/0001.seg.png"."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def _member_fault(member: tarfile.TarInfo, suffix: str, is_named: bool) -> tuple[str, str] | None:
    """Why a member must not be read."""
    name = member.name[:200]
    parts = PurePosixPath(member.name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or "\0" in member.name:
        return "unsafe tar member", f"{name} leads out of the shard"
    if member.issym() or member.islnk():
        return (
            "unsafe tar member",
            f"{name} is a link, not a plain file: pack with tar --dereference --hard-dereference",
        )
    if not member.isreg():
        return "unsafe tar member", f"{name} is not a plain file"
    if member.issparse():
        return "unsafe tar member", f"{name} is a sparse file: pack without --sparse"
    kind = suffix.rsplit(".", 1)[-1]
    if kind in PICKLE_SUFFIXES and not (is_named and kind == NUMPY_SUFFIX):
        return "unsafe tar member", f"{name} may hold code"
    is_file = is_named or kind in IMAGE_SUFFIXES
    limit = MAX_IMAGE_BYTES if is_file else MAX_TEXT_BYTES
    if (is_file or kind in TEXT_SUFFIXES) and member.size > limit:
        return "unsafe tar member", f"{name} has {member.size} bytes"
    return None


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise ReadError when the headers end before the file: tarfile takes a broken header for the end of the tar."""
    stream = tar.fileobj
    assert stream is not None
    stream.seek(tar.offset)
    mark = stream.read(BLOCK)
    rest_is_empty = not any(block.strip(b"\0") for block in iter(lambda: stream.read(1 << 20), b""))
    if mark != bytes(BLOCK) or not rest_is_empty:
        raise tarfile.ReadError("a header is broken or the end is missing")
