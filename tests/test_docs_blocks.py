"""The code of the documentation: the parser takes every command, and what Python blocks import is there."""

import ast
from importlib import import_module

import pytest
from doc_blocks import PAGES, Block, blocks_of

from gapless.cli.main import VERBS
from gapless.cli.options import parse
from gapless.cli.overview import find_verb
from gapless.core.errors import UsageError

BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def wrong_commands(block: Block) -> list[str]:
    """A sentence for each command of a block that the parser refuses; a file that only the reader has is no fault."""
    faults = []
    for words in block.gapless_commands:
        if words[0] in ("help", "--help"):
            continue
        try:
            name, rest = find_verb(words, VERBS)
            parse(name, VERBS[name], rest)
        except UsageError as error:
            faults.append(f"{' '.join(words)}: {error}")
        except SystemExit:  # `--help` and `--print_config` print and end
            continue
    return faults


def unknown_names(code: str) -> list[str]:
    """The names that a Python block imports from gapless and that are not there."""
    imported = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    return [
        f"{node.module}.{alias.name}"
        for node in imported
        if (node.module or "").split(".")[0] == "gapless"
        for alias in node.names
        if not hasattr(import_module(str(node.module)), alias.name)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_is_one_that_the_parser_takes(page):
    assert [fault for block in blocks_of(page) if block.is_shell for fault in wrong_commands(block)] == []


def test_the_pages_hold_commands_and_python():
    assert sum(1 for block in BLOCKS if block.is_shell for _ in block.gapless_commands) > 70
    assert sum(1 for block in BLOCKS if block.language == "python") > 15
    assert {block.language for block in BLOCKS} <= {"", "sh", "bash", "python", "toml", "yaml"}


@pytest.mark.parametrize(
    "code",
    [
        "gapless serach C words",
        "gapless measure --grups x",
        "a && gapless index R",
        "gapless data table x.csv \\\n  --k 3",
    ],
)
def test_a_wrong_command_is_a_fault(code):
    assert len(wrong_commands(Block("page", "sh", f"{code}\n", runs=False))) == 1


def test_an_optional_option_is_checked_too():
    assert wrong_commands(Block("page", "", "gapless train table-small --data D --out O [--sed 0]\n", False)) != []
    assert wrong_commands(Block("page", "", "gapless train table-small --data D --out O [--seed 0]\n", False)) == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=lambda one: one.page)
def test_python_blocks_are_python_and_import_what_is_there(block):
    assert unknown_names(block.code) == []


def test_a_name_that_is_not_there_is_seen():
    assert unknown_names("from gapless.losses import GapClosingLoss, Nothing") == ["gapless.losses.Nothing"]
