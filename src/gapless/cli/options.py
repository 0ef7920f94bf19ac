"""The options of a verb: parsed, checked, and refused in sentences that name the option and the nearest right one."""

import math
import re
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path

from gapless.cli.verb import LIMITS, Arguments, Parser, Verb
from gapless.core.errors import DataRefused, UsageError, one_line

HELP_ALL = "--help_all"
# What a value should be, by the type that the parser's message names.
EXPECTED = (
    (re.compile(r"<class 'int'>|\bint\b"), "a whole number"),
    (re.compile(r"<class 'float'>|\bfloat\b"), "a number"),
    (re.compile(r"<class 'bool'>|\bbool\b"), "true or false"),
    (re.compile(r"<class '(?:\w+\.)*Path'>|\bPath\b"), "a path"),
    (re.compile(r"Mapping|dict"), "names with values"),
)


def build_parser(name: str, verb: Verb, short_help: bool = False) -> Parser:
    """The parser of a verb, with the options that every verb has; a short help leaves the rare ones out."""
    from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]

    from gapless.cli.help_format import FullHelp, ShortHelp

    parser = ArgumentParser(
        prog=f"gapless {name}",
        description=verb.summary,
        exit_on_error=False,
        formatter_class=ShortHelp if short_help else FullHelp,
    )
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verb.add_arguments(parser)
    return parser


def underscored(word: str) -> str:
    """`--image-key` is `--image_key`: both spellings of an option are taken."""
    option, equals, value = word.partition("=")
    return option[:2] + option[2:].replace("-", "_") + equals + value if option.startswith("--") else word


def check_config_files(argv: Sequence[str]) -> None:
    """Refuse a configuration that the parser would stumble over or never finish."""
    from gapless.core.files import read_yaml

    named = [word.partition("=")[2] for word in argv if word.startswith("--config=")]
    named += [file for word, file in pairwise(argv) if word == "--config"]
    for file in map(Path, named):
        if file.is_file():
            try:
                read_yaml(file)
            except DataRefused as error:
                raise UsageError(str(error)) from None


def parse(name: str, verb: Verb, argv: Sequence[str]) -> Arguments:
    """The options of a verb; some defaults depend on others (a recipe's values on its name), hence the second pass.

    Raises:
        UsageError: a sentence that names the option.
    """
    from argparse import ArgumentError, ArgumentTypeError

    from gapless.cli.help_format import epilogue

    words = [underscored(word) for word in argv]
    short_help = HELP_ALL not in words
    argv = ["--help" if word == HELP_ALL else word for word in words]
    parser = build_parser(name, verb, short_help)
    if verb.late_arguments is not None:
        verb.late_arguments(parser, argv)
    parser.epilog = epilogue(name, verb.example, parser._actions, parser.epilog, short_help)
    check_config_files(argv)
    try:
        args = parsed(parser, verb, argv)
    except (ArgumentError, ArgumentTypeError) as error:
        raise UsageError(f"{sentence_of(str(error), parser)} (gapless {name} --help)") from None
    check_limits(args, name)
    return args


def parsed(parser: Parser, verb: Verb, argv: Sequence[str]) -> Arguments:
    if verb.late_defaults is None:
        return parser.parse_args(argv)
    first = parser.parse_args([word for word in argv if not word.startswith("--print_config")])
    parser.set_defaults(verb.late_defaults(first))
    return parser.parse_args(argv)


def check_limits(args: Arguments, name: str, prefix: str = "") -> None:
    """Refuse numbers that no verb can use, whether they were typed or came from a configuration file."""
    for option, value in vars(args).items():
        if type(value).__name__ == "Namespace":
            check_limits(value, name, f"{prefix}{option}.")
        if option not in LIMITS or not isinstance(value, int | float) or isinstance(value, bool):
            continue
        least, most = LIMITS[option]
        if not least <= value <= most:
            allowed = f"is at least {least}" if math.isinf(most) else f"lies between {least} and {most}"
            raise UsageError(f"--{prefix}{option} {allowed}, got {value} (gapless {name} --help)")


def sentence_of(message: str, parser: Parser) -> str:
    """The parser's message as a sentence for the user, with options as they are typed."""
    message = one_line(ValueError(message), limit=1000)
    if match := re.match(r"unrecognized arguments: (.*)", message):
        return unknown_words(match[1], parser)
    if match := re.match(r"the following arguments are required: (.*)", message):
        return f"missing: {', '.join(shown_option(key, parser) for key in match[1].split(', '))}"
    if match := re.match(r"argument (?:-\w/)?(--[\w.]+): (.*)", message):
        reason = re.sub(r"^expected (?:one|at least one) argument$", "expected a value after it", match[2])
        return f"{match[1]}: {re.sub(r'^ignored explicit argument', 'takes no value, got', reason)}"
    if match := re.match(r"Parser key \"([^\"]+)\": (.*)", message):
        return f"{shown_option(match[1], parser)}: {wrong_value(match[2])}"
    return without_types(message)


def unknown_words(text: str, parser: Parser) -> str:
    """The sentence on options and words that the verb does not have."""
    words = text.split()
    options = [word for word in words if word.startswith("-")]
    if not options:
        return f"unexpected words: {text[:100]}; put what belongs together in quotes"
    name = options[0].partition("=")[0]
    option_names = [option.lstrip("-") for action in parser._actions for option in action.option_strings]
    near = get_close_matches(name.lstrip("-"), option_names, n=1, cutoff=0.7)
    return f"unknown option {name}" + (f"; did you mean --{near[0]}?" if near else "")


def shown_option(key: str, parser: Parser) -> str:
    """A key of the configuration as it is typed: an option has its dashes, a positional word has none."""
    positional = any(action.dest == key and not action.option_strings for action in parser._actions)
    return key if positional else f"--{key}"


def wrong_value(message: str) -> str:
    """The sentence on a wrong value: what was expected, and the value."""
    value = re.search(r"(?:Got|Given) value: ?(.*)$", message)
    if value is None or not message.startswith(("Expected a", "Does not validate")):
        return without_types(message)
    expected = [words for pattern, words in EXPECTED if pattern.search(message[: value.start()])]
    return f"expected {' or '.join(expected[:2]) or 'another value'}, got {value[1][:80]!r}"


def without_types(message: str) -> str:
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", message)[:400]
