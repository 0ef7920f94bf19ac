"""`gapless completion bash`: a script with which the shell completes verbs, their options and file names."""

from collections.abc import Callable, Mapping

from gapless.cli.verb import FIRST, Arguments, Outcome, Parser, Verb

SHELLS = ("bash", "zsh")
# Bash reads COMP_WORDS; zsh runs the same function through its own bashcompinit.
SCRIPT = """\
# Completion of gapless: write this to a file that the shell reads at its start.
_gapless() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" first="${{COMP_WORDS[1]}}" both="${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}"
    local words=""
    if [[ $COMP_CWORD -eq 1 ]]; then
        words="{first_words}"
    else
        case "$first" in
{families}
        esac
        if [[ $COMP_CWORD -gt 2 || -z $words ]]; then
            words=""
            case "$both" in
{options}
            esac
        fi
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    if [[ ${{#COMPREPLY[@]}} -eq 0 && $word != -* ]]; then COMPREPLY=($(compgen -f -- "$word")); fi
}}
complete -o filenames -F _gapless gapless
"""


def completion_verbs(verbs: Callable[[], Mapping[str, Verb]]) -> dict[str, Verb]:
    """The verb; `verbs` gives all verbs of the command, this one among them."""

    def run(args: Arguments) -> Outcome:
        script = completion_script(verbs())
        text = f"autoload -U +X bashcompinit && bashcompinit\n{script}" if args.shell == "zsh" else script
        return Outcome({"shell": args.shell, "script": text}, text.rstrip("\n"))

    def arguments(parser: Parser) -> None:
        parser.add_argument("shell", choices=SHELLS, help="bash or zsh")

    return {
        "completion": Verb(
            FIRST,
            "a script that completes verbs and options in your shell",
            "completion bash > ~/.local/share/bash-completion/completions/gapless",
            arguments,
            run,
        )
    }


def completion_script(verbs: Mapping[str, Verb]) -> str:
    """The script for bash, with the verbs and options that are registered now."""
    firsts = {name.split()[0]: None for name in verbs}
    families = {first: [name.split()[1] for name in verbs if name.startswith(f"{first} ")] for first in firsts}
    branches = [
        f'            {first}) words="{" ".join(seconds)}" ;;' for first, seconds in families.items() if seconds
    ]
    # "data table" comes before "index": the pattern of a verb of one word takes any second word.
    ordered = sorted(verbs, key=lambda name: -len(name.split()))
    options = [
        f'                {_pattern(name)}) words="{" ".join(_options(name, verbs[name]))}" ;;' for name in ordered
    ]
    return SCRIPT.format(first_words=" ".join(firsts), families="\n".join(branches), options="\n".join(options))


def _pattern(name: str) -> str:
    return f'"{name}"' if " " in name else f'"{name} "*'


def _options(name: str, verb: Verb) -> list[str]:
    """The options of a verb as they are listed in its help."""
    from gapless.cli.options import build_parser

    actions = build_parser(name, verb)._actions
    return [option for action in actions for option in action.option_strings[-1:] if not option.endswith("+")]
