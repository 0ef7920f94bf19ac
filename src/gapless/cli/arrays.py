"""The options of all verbs that read embeddings: directories and files, or one plain array per modality."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from gapless.cli.verb import Arguments, Parser
from gapless.core.errors import UsageError

USUAL_MODALITIES = ("image", "text")


def array_arguments(parser: Parser) -> None:
    """Plain arrays in place of an embeddings directory."""
    group = parser.add_argument_group("plain arrays in place of EMB (one option per modality, row i is one pair)")
    for name in USUAL_MODALITIES:
        group.add_argument(f"--{name}", type=Path, default=None, help=".npy, .npz, .safetensors or .parquet")
    group.add_argument("--groups", type=Path, default=None, help="what must not be split: one line per row")
    group.add_argument("--labels", type=Path, default=None, help="classes: one line per row, empty where missing")
    group.add_argument(
        "--positives",
        default=None,
        help="what each row shows, such as its image where an image has several captions: a file of one line per row, "
        "or a column; rows of one item count as right for each other in lenient_R@K",
    )
    group.add_argument(
        "--missing",
        choices=["keep", "drop"],
        default=None,
        help="rows that lack a modality (NaN, a null, an id that one file lacks): keep or drop them; default: refuse",
    )


def further_modalities(parser: Parser, words: Sequence[str]) -> None:
    """`--waveform W.npy`: an unknown option that is given an array file is a modality of that name."""
    from gapless.embeddings.array_files import SUFFIXES

    known = parser._option_string_actions
    for option, value in pairwise([*words, ""]):
        option, _, attached = option.partition("=")
        if option.startswith("--") and option not in known and (attached or value).lower().endswith(SUFFIXES):
            parser.add_argument(option, type=Path, default=None, help="a further modality")


def modality_files(args: Arguments) -> dict[str, Path]:
    """The arrays that were given, by modality, in the order image, text, others."""
    from gapless.embeddings.array_files import SUFFIXES

    other_options = {"groups", "labels", "out", "html"}
    paths = {name: value for name, value in vars(args).items() if isinstance(value, Path) and name not in other_options}
    return {name: path for name, path in paths.items() if name in USUAL_MODALITIES or path.suffix.lower() in SUFFIXES}


def given_source(args: Arguments, sources: Sequence[Path]) -> Any:
    """What the options name as embeddings: directories and files, or one array per modality.

    Raises:
        UsageError: both, or none.
    """
    arrays = modality_files(args)
    if bool(arrays) == bool(sources):
        raise UsageError("give embeddings directories, or one array per modality (--image A.npy --text B.npy)")
    return arrays or list(sources)


def given_beside(args: Arguments) -> dict[str, Any]:
    """The files of one value per row, and what to do with rows that lack a modality."""
    return {"labels": args.labels, "groups": args.groups, "positives": args.positives, "missing": args.missing}
