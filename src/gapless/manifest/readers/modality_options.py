"""The options of readers that can write several modalities, and what they mean together."""

from collections.abc import Sequence
from typing import Any

from gapless.core.errors import UsageError, unknown_name
from gapless.manifest.modality_spec import ModalitySpec, check_names, parse_modalities

KEEP, DROP = "keep", "drop"
MODALITY_HELP = (
    "NAME=KIND:COLUMN[,COLUMN...][,param=value...], once for each modality: image=image:file, labs=table:age,sex,hb, "
    "ecg=waveform:path,rate=500; an empty cell is a modality that the row lacks"
)


def given_modalities(
    words: Sequence[str], shorthands: Sequence[ModalitySpec], labels: Sequence[str], is_asked: bool
) -> tuple[ModalitySpec, ...]:
    """The modalities of `--modality`, with those that `--image-key` and `--caption-key` stand for; none without either.

    Args:
        words: of `--modality`.
        shorthands: what the other keys stand for.
        labels: names that are taken.
        is_asked: whether modalities may be absent without `--modality`, by `--missing keep`.

    Raises:
        UsageError: a wrong word, or one name twice.
    """
    if not words and not is_asked:
        return ()
    specs = (*shorthands, *parse_modalities(words))
    check_names(specs, labels)
    return specs


def presence_options(specs: Sequence[ModalitySpec], missing: str | None, min_present: int | None) -> dict[str, Any]:
    """`min_present` and `drops_incomplete` of the build.

    Raises:
        UsageError: a value that is out of range, or one that needs modalities.
    """
    if missing not in (None, KEEP, DROP):
        raise unknown_name("--missing", missing, (KEEP, DROP))
    if not specs:
        if min_present is not None:
            raise UsageError(
                "--min-present needs --modality, or --missing keep: without them every row must be complete"
            )
        return {}
    most = len(specs)
    if min_present is not None and not 1 <= min_present <= most:
        raise UsageError(f"--min-present is between 1 and the {most} modalities that are named, got {min_present}")
    return {"min_present": min(2, most) if min_present is None else min_present, "drops_incomplete": missing == DROP}
