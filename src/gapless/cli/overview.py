"""Finds the verb that was typed, and the help that lists verbs: all of them, or a family (`gapless data --help`).

This module imports no library, so that `gapless --help` is fast.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from gapless.cli.verb import CAPTIONS, DATA, EMBEDDINGS, FIRST, SEARCH, TRAINING, Verb
from gapless.core.errors import UsageError

HELP_WORDS = ("-h", "--help", "--help-all", "--help_all", "help")
TASKS = (FIRST, DATA, TRAINING, EMBEDDINGS, CAPTIONS, SEARCH)
SHOWN = ("data table", "compare", "measure", "search")  # whose example stands for their task


def overview(verbs: Mapping[str, Verb]) -> str:
    """The help of the whole command."""
    return (
        "usage: gapless VERB [options]      (gapless VERB --help says what a verb takes)\n\n"
        "Train, measure and use medical image-text embeddings whose modality gap is closed.\n\n"
        f"{by_task(verbs)}\n\n"
        "everywhere: --json, --quiet, --debug, --config FILE.yaml, --print_config, --help-all, --version\n"
        "Research use, not for diagnosis."
    )


def family_help(family: str, verbs: Mapping[str, Verb]) -> str:
    """The help of verbs that share their first word, which is no verb by itself."""
    members = family_of(family, verbs)
    return (
        f"usage: gapless {family} VERB [options]      (gapless {family} VERB --help says what a verb takes)\n\n"
        f"verbs:\n{summaries(members)}\n\n{examples(members)}"
    )


def by_task(verbs: Mapping[str, Verb]) -> str:
    """The verbs under the headings of their tasks, an example below each."""
    width = max(map(len, verbs))
    tasks = {verb.task: None for verb in sorted(verbs.values(), key=lambda verb: TASKS.index(verb.task))}
    parts = []
    for task in tasks:
        members = {name: verb for name, verb in verbs.items() if verb.task == task}
        shown = next((verb for name, verb in members.items() if name in SHOWN), next(iter(members.values())))
        parts.append(f"{task}:\n{summaries(members, width)}\n  e.g. gapless {shown.example}")
    return "\n\n".join(parts)


def examples(verbs: Mapping[str, Verb]) -> str:
    """The examples of verbs, a line each."""
    return "\n".join(["examples:", *(f"  gapless {verb.example}" for verb in verbs.values() if verb.example)])


def summaries(verbs: Mapping[str, Verb], width: int | None = None) -> str:
    """A line for each verb: its name and its summary."""
    width = width or max(map(len, verbs))
    return "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in verbs.items())


def family_of(word: str, verbs: Mapping[str, Verb]) -> dict[str, Verb]:
    """The verbs whose first word this is."""
    return {name: verb for name, verb in verbs.items() if name.split()[0] == word}


def help_asked(argv: Sequence[str], verbs: Mapping[str, Verb]) -> str | None:
    """The help text that the words ask for, or None where they name a verb, which shows its own.

    `gapless help VERB` is `gapless VERB --help`: see `as_options`.

    Raises:
        UsageError: help on an unknown verb.
    """
    if not argv or argv[0] in HELP_WORDS[:-1] or (argv[0] == "help" and all(word in HELP_WORDS for word in argv)):
        return overview(verbs)
    words = list(argv[1:]) if argv[0] == "help" else list(argv)
    family = words[0] not in verbs and bool(family_of(words[0], verbs))
    alone = words[1:2] == [] if argv[0] == "help" else words[1:2] in ([word] for word in HELP_WORDS)
    return family_help(words[0], verbs) if family and alone else None


def as_options(argv: Sequence[str]) -> list[str]:
    """`help VERB ...` as `VERB ... --help`."""
    return [*argv[1:], "--help"] if argv[0] == "help" else list(argv)


def find_verb(argv: Sequence[str], verbs: Mapping[str, Verb]) -> tuple[str, list[str]]:
    """The verb that the first one or two words name, and the words after it.

    Raises:
        UsageError: an unknown verb; the message names the nearest, or the members of the family.
    """
    for length in (2, 1):
        name = " ".join(argv[:length])
        if len(argv) >= length and name in verbs:
            return name, list(argv[length:])
    first, family = argv[0], family_of(argv[0], verbs)
    second = next((word for word in argv[1:2] if not word.startswith("-")), None)
    if family and second is None:
        raise UsageError(f"{first!r} needs a second word: {', '.join(family)} (gapless {first} --help)")
    near = nearest_verb(first, second, family or verbs)
    typed = f"{first} {second}" if family or (near and " " in near and second) else first
    if near:
        raise UsageError(f"unknown verb {typed!r}; did you mean {near!r}? (gapless --help lists all)")
    raise UsageError(f"unknown verb {typed!r}; known: {', '.join(family or verbs)}")


def nearest_verb(first: str, second: str | None, verbs: Mapping[str, Verb]) -> str | None:
    """The verb that is most similar to the first two words, or to the first, or whose second word is; None for none."""
    both = f"{first} {second or ''}".strip()
    names = {name: name for name in [*verbs, *(name.split()[0] for name in verbs)]}
    seconds = {name.split()[-1]: name for name in reversed(list(verbs)) if " " in name}
    attempts = [(both, names)] if first in names else [(both, names), (first, names), (first, seconds)]
    for typed, known in attempts:
        near = get_close_matches(typed.lower(), known, n=1, cutoff=0.75)
        if near and known[near[0]] != first:
            return known[near[0]]
    return None
