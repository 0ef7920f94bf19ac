"""`gapless VERB ...`: the only printer and the only exit codes.

0 done, 1 failure, 2 wrong usage or configuration, 3 data refused, 4 needs the network while offline, 130 interrupted.
With `--json` stdout holds one JSON object and nothing else; logs and progress go to stderr.
"""

import os
import sys
from collections.abc import Sequence

from gapless.errors import DataRefused, GaplessError, UsageError
from gapless.files import strict_json
from gapless.verbs import captions, closing, data, embeddings, search, serving, training
from gapless.verbs.verb import Arguments, Parser, Verb, check_numbers

VERBS: dict[str, Verb] = {
    **data.VERBS,
    **training.VERBS,
    **embeddings.VERBS,
    **closing.VERBS,
    **captions.VERBS,
    **search.VERBS,
    **serving.VERBS,
}


def overview() -> str:
    width = max(map(len, VERBS))
    lines = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        "usage: gapless VERB [options]      (gapless VERB --help says what a verb takes)\n\n"
        "Train, measure and use medical image-text embeddings whose modality gap is closed.\n\n"
        f"verbs:\n{lines}\n\n"
        "everywhere: --json, --debug, --config FILE.yaml, --print_config, --version\n"
        "Research use, not for diagnosis."
    )


def find_verb(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The verb that the first one or two words name, and the words after it."""
    for length in (2, 1):
        name = " ".join(argv[:length])
        if len(argv) >= length and name in VERBS:
            return name, list(argv[length:])
    families = [name for name in VERBS if name.split()[0] == argv[0]]
    raise UsageError(f"unknown verb {' '.join(argv[:2])!r}; known: {', '.join(families or VERBS)}")


def build_parser(name: str, verb: Verb) -> Parser:
    from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]

    parser = ArgumentParser(prog=f"gapless {name}", description=verb.summary, exit_on_error=False)
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verb.add_arguments(parser)
    return parser


def underscored(word: str) -> str:
    """`--image-key` is `--image_key`: both spellings of an option are taken."""
    option, equals, value = word.partition("=")
    return option[:2] + option[2:].replace("-", "_") + equals + value if option.startswith("--") else word


def check_config_files(argv: Sequence[str]) -> None:
    """Refuse a configuration that the parser would stumble over or never finish."""
    from itertools import pairwise
    from pathlib import Path

    from gapless.files import read_yaml

    named = [word.partition("=")[2] for word in argv if word.startswith("--config=")]
    named += [file for word, file in pairwise(argv) if word == "--config"]
    for file in map(Path, named):
        if file.is_file():
            try:
                read_yaml(file)
            except DataRefused as error:
                raise UsageError(str(error)) from None


def parse(name: str, argv: Sequence[str]) -> Arguments:
    """The options of a verb; some defaults depend on others (a recipe's values on its name), hence the second pass."""
    from argparse import ArgumentError

    verb = VERBS[name]
    argv = [underscored(word) for word in argv]
    parser = build_parser(name, verb)
    if verb.late_arguments is not None:
        verb.late_arguments(parser, argv)
    check_config_files(argv)
    try:
        if verb.late_defaults is None:
            return parser.parse_args(argv)
        first = parser.parse_args([word for word in argv if not word.startswith("--print_config")])
        parser.set_defaults(verb.late_defaults(first))
        return parser.parse_args(argv)
    except ArgumentError as error:
        raise UsageError(f"{' '.join(str(error).split())} (gapless {name} --help)") from None


def quiet_libraries() -> None:
    """Bars and notes of the libraries would stand between ours; set before they are imported."""
    for name, value in {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)


def run(argv: Sequence[str]) -> None:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return
    if argv[0] == "--version":
        from gapless import __version__

        print(__version__)
        return
    name, rest = find_verb(argv)
    quiet_libraries()
    args = parse(name, rest)
    check_numbers(args)
    outcome = VERBS[name].run(args)
    for note in outcome.notes:
        print(f"gapless: {note}", file=sys.stderr)
    print(strict_json(outcome.value, sort_keys=True) if args.json else outcome.text)
    if outcome.refusal is not None:
        raise outcome.refusal


def main(argv: Sequence[str] | None = None) -> int:
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
        known = isinstance(error, GaplessError)
        message = str(error) if known else f"{type(error).__name__}: {error} (--debug shows where)"
        print(f"gapless: {message}", file=sys.stderr)
        return error.exit_code if isinstance(error, GaplessError) else 1
    return 0
