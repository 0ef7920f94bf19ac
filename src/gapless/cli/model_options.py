"""Options of the verbs that read a data set for a model: `embed`, `index`, `caption generate`, `caption calibrate`."""

from gapless.cli.verb import Parser


def workers_argument(parser: Parser) -> None:
    parser.add_argument(
        "--workers",
        type=int,
        default=None,
        help="processes that read images; default none beside a CPU, a core each (at most 16) beside an accelerator",
    )
