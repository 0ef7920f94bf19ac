"""`gapless docs, about`: the installed documentation, and what is installed with which licences."""

from gapless.cli.verb import FIRST, Arguments, Outcome, Parser, Verb


def docs_arguments(parser: Parser) -> None:
    parser.add_argument("page", nargs="?", default="index", help="measure, close, reference/commands, ...")
    parser.add_argument("--address_only", action="store_true", help="print the address and open no browser")


def docs(args: Arguments) -> Outcome:
    from gapless.pages import documentation

    page = documentation(args.page, browser=not (args.address_only or args.json))
    asked = not (args.address_only or args.json)
    notes = ["no browser could be opened; open the address in one"] if asked and not page.opened else []
    return Outcome(page.as_json(), page.address, notes=notes)


def about_arguments(parser: Parser) -> None:
    parser.add_argument("--licences", action="store_true", help="every package that gapless needs, with its licence")


def about(args: Arguments) -> Outcome:
    from gapless.core.installation import Installation, installation

    found: Installation = installation()
    lines = [f"gapless {found.version}, Python {found.python}", "", "extras:"]
    for extra, missing in found.extras.items():
        state = f"needs {', '.join(missing)} (pip install 'gapless[{extra}]')" if missing else "installed"
        lines.append(f"  {extra:<10}{state}")
    if args.licences:
        width = max(map(len, found.licences))
        rows = [f"  {name:<{width}}  {one['version']:<18}{one['licence']}" for name, one in found.licences.items()]
        lines += ["", f"licences of {len(rows)} packages:", *rows]
    return Outcome(found.as_json(), "\n".join(lines))


VERBS = {
    "docs": Verb(FIRST, "the documentation in your browser, without a network", "docs", docs_arguments, docs),
    "about": Verb(
        FIRST, "version, extras, and the licences of what is installed", "about --licences", about_arguments, about
    ),
}
