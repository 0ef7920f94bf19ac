"""`gapless VERB ...`: runs a verb, prints its outcome, and returns the exit code; no other module prints or exits.

Exit codes: 0 done, 1 failure, 2 wrong usage or configuration, 3 data refused, 4 needs the network while offline,
130 interrupted. With `--json` stdout holds one JSON object and nothing else; logs and progress go to stderr.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from gapless.cli import about, captions, closing, data, embeddings, search, serving, training
from gapless.cli.completion import completion_verbs
from gapless.cli.overview import as_options, find_verb, help_asked
from gapless.cli.verb import Verb
from gapless.core.errors import GaplessError
from gapless.core.progress import show_progress


class Verbs(Mapping[str, Verb]):
    """All verbs by name. Those of the readers are looked up only when one may be meant, so that others start sooner."""

    def __init__(self) -> None:
        rooms = (data, training, embeddings, closing, captions, search, serving, about)
        self._fixed = {name: verb for room in rooms for name, verb in room.VERBS.items()}
        self._fixed |= completion_verbs(lambda: self)

    @cached_property
    def _all(self) -> dict[str, Verb]:
        return {**data.reader_verbs(), **self._fixed}

    def __getitem__(self, name: str) -> Verb:
        return self._fixed[name] if name in self._fixed else self._all[name]

    def __contains__(self, name: object) -> bool:
        return name in self._fixed or name in self._all

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


VERBS = Verbs()


def quiet_libraries() -> None:
    """Switch off progress bars and notes of the libraries by environment variables, before they are imported."""
    for name, value in {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)


def run(argv: Sequence[str]) -> None:
    """Run the verb that the words name and print its outcome, or print the help that they ask for."""
    text = help_asked(argv, VERBS)
    if text is not None:
        print(text)
        return
    if argv[0] == "--version":
        from gapless import __version__

        print(__version__)
        return
    name, rest = find_verb(as_options(argv), VERBS)
    quiet_libraries()
    from gapless.cli.options import parse
    from gapless.core.files import strict_json
    from gapless.core.launch import rank_and_count

    args = parse(name, VERBS[name], rest)
    show_progress("off" if args.quiet else "bar" if sys.stderr.isatty() else "lines")
    outcome = VERBS[name].run(args)
    if outcome.is_shared and rank_and_count()[0] != 0:
        return
    for note in outcome.notes:
        print(f"gapless: {note}", file=sys.stderr)
    print(strict_json(outcome.value, sort_keys=True) if args.json else outcome.text)
    if outcome.refusal is not None:
        raise outcome.refusal


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; an error is one sentence on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        run(argv)
    except KeyboardInterrupt:
        print("gapless: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if "--debug" in argv:
            raise
        is_ours = isinstance(error, GaplessError)
        message = str(error) if is_ours else f"{type(error).__name__}: {error} (--debug shows where)"
        print(f"gapless: {message}", file=sys.stderr)
        return error.exit_code if isinstance(error, GaplessError) else 1
    return 0
