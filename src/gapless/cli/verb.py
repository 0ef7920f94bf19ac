"""The types of a verb of the command line and of its outcome, and the limits of numeric options."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import Any

from gapless.core.errors import GaplessError

# The headings of the help, in its order.
FIRST = "a first look, without data"
DATA = "data to manifests"
TRAINING = "train, and compare what was trained"
EMBEDDINGS = "measure and close the gap, also of other models"
CAPTIONS = "captions"
SEARCH = "search"
Arguments = Any
Parser = Any


@dataclass(frozen=True)
class Outcome:
    """The outcome of a verb: `value` is the object that `--json` prints, `text` is printed without `--json`."""

    value: dict[str, Any]
    text: str
    refusal: GaplessError | None = None  # raised after the outcome is printed
    notes: Sequence[str] = ()  # sentences for stderr, also with `--json`
    is_shared: bool = False  # the same in every process of `torchrun`, of which the first prints it


@dataclass(frozen=True)
class Verb:
    """One verb of the command line.

    Args:
        task: the heading under which the help lists it.
        summary: its line in the help.
        example: a command that a user can start from, without the word `gapless`.
        add_arguments: adds its options to a parser.
        run: parsed options to the outcome.
        late_defaults: defaults that depend on other options, such as the values of a named recipe.
        late_arguments: adds options that the words on the command line name, such as one per modality.
    """

    task: str
    summary: str
    example: str
    add_arguments: Callable[[Parser], None]
    run: Callable[[Arguments], Outcome]
    late_defaults: Callable[[Arguments], dict[str, Any]] | None = None
    late_arguments: Callable[[Parser, Sequence[str]], None] | None = None


# The least and the largest value of numeric options of all verbs, by the option's name; `options` checks them.
LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("num_bootstrap", "workers", "ann_above", "num_validation", "num_test"), (0, math.inf)),
    **dict.fromkeys(("noise_std", "learning_rate", "weight_decay"), (0, math.inf)),
    **dict.fromkeys(("batch_size", "micro_batch_size", "shard_size", "k", "seeds", "num_pairs"), (1, math.inf)),
    **dict.fromkeys(("embedding_dim", "hidden", "vocab_size", "num_slots", "max_tokens", "image_size"), (1, math.inf)),
    **dict.fromkeys(("num_epochs", "max_steps", "steps_per_epoch", "num_evaluations", "patience"), (1, math.inf)),
    **dict.fromkeys(("dropout", "input_dropout", "warmup_share", "validation_share", "max_bad"), (0, 1)),
    "image_weight": (0, 1),
    "seed": (0, 2**32 - 1),  # what NumPy takes
    "port": (0, 65535),
}

# Options that few users need, by name; `--help` leaves them out, and those of a part (`--loss.temperature`), and
# `--help-all` shows them.
RARE = frozenset(
    (
        *("debug", "print_config", "workers", "max_bad", "num_bootstrap", "dtype", "shard", "shard_size", "ray"),
        *("licence", "licence_key", "encoding", "separator", "store_images", "image_root", "allow_burned_in_text"),
        *("kinds", "image_size", "num_test", "num_validation", "near_duplicates", "fail_on"),
        *("training", "vocab_size", "embedding_dim", "micro_batch_size", "modality_dropout", "augment_images"),
        *("ann", "ann_above", "staging", "hub_correction", "bank", "restore_deleted", "text_labels"),
        *(
            "allow_host",
            "max_upload_mb",
            "in_memory",
            "name",
            "push",
            "num_slots",
            "held_back",
            "gap_weight",
            "use_patches",
        ),
        *("length_penalty", "no_repeat_ngram_size", "temperature", "top_p"),
    )
)


def terminal_width() -> int:
    """Columns of the terminal; 110 when stdout is none."""
    return get_terminal_size((110, 40)).columns


def ascii_only() -> bool:
    """Whether stdout can show only ASCII."""
    return (sys.stdout.encoding or "ascii").lower().replace("-", "") not in ("utf8", "utf16")
