"""Help that answers whichever way it is asked, in no programming language; and typing errors that name the nearest."""

import re
import shlex
import subprocess
import sys

import pytest

from gapless.cli.completion import completion_script
from gapless.cli.main import VERBS, main
from gapless.cli.options import parse
from gapless.cli.overview import find_verb
from gapless.cli.reader_summaries import reader_summaries
from gapless.manifest.readers.base import READERS

PYTHON_NOTATION = re.compile(r"<class|\{['\"]|\bNone\b|Mapping\[|Union\[|\| null|\btype: |<function|object at 0x")
WORDS_OF_A_RECIPE = {"train": ["phantom-small"]}


@pytest.fixture(scope="module")
def completion(tmp_path_factory):
    """A file with the script for bash."""
    path = tmp_path_factory.mktemp("completion") / "gapless.bash"
    path.write_text(completion_script(VERBS))
    return path


def printed(capsys, *words: str) -> str:
    """What a command that must succeed prints."""
    try:
        code = main(list(words))
    except SystemExit as end:  # the parser ends the process after its help
        code = end.code
    assert code == 0
    return capsys.readouterr().out


def refusal(capsys, *words: str) -> str:
    """The one sentence of a command that is wrong usage."""
    assert main(list(words)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    return said.err


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_shows_its_options_without_a_programming_language(capsys, name):
    text = " ".join(printed(capsys, *name.split(), *WORDS_OF_A_RECIPE.get(name, []), "--help").split())
    assert text.startswith(f"usage: gapless {name}")
    assert VERBS[name].summary in text
    assert not PYTHON_NOTATION.search(text)


def test_the_parsers_own_help_would_show_python(capsys):
    """The control: the same verb without our formatter."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="gapless train")
    VERBS["train"].add_arguments(parser)
    assert len(PYTHON_NOTATION.findall(parser.format_help())) > 3


@pytest.mark.parametrize("name", VERBS)
def test_the_example_of_a_verb_is_one_that_its_parser_takes(name):
    words = shlex.split(VERBS[name].example)
    words = words[: words.index(">")] if ">" in words else words
    found, rest = find_verb(words, VERBS)
    assert found == name
    assert parse(name, VERBS[name], rest).json is False


def test_rare_options_are_behind_help_all(capsys):
    short, whole = printed(capsys, "measure", "--help"), printed(capsys, "measure", "--help-all")
    for rare in ("--num_bootstrap", "--print_config"):
        assert rare not in short
        assert rare in whole
    assert "--groups" in short
    hidden = set(re.findall(r"--\w+", whole)) - set(re.findall(r"--\w+", short))
    assert f"{len(hidden)} more options: gapless measure --help-all" in short
    assert "more options" not in whole


@pytest.mark.parametrize("words", [("train", "phantom-small"), ("close",), ("data", "table"), ("index",)])
def test_what_must_be_given_is_in_the_short_help(capsys, words):
    short = printed(capsys, *words, "--help")
    required = re.findall(r"(--\w+) [A-Z_]+(?= |$)", short.splitlines()[0])
    assert required or words == ("close",)
    assert all(f"  {option} " in short for option in required)
    assert "--loss." not in short


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["me"], ["measure"]),
        (["data", "ta"], ["table"]),
        (["data", "table", "--image_k"], ["--image_key"]),
        (["measure", "x.npy", "--gr"], ["--groups"]),
        (["index", "delete", "--wh"], ["--where"]),
        (["index", "run", "--da"], ["--data"]),
        (["measure", "case"], ["cases.txt"]),
        (["measure", "--nothing"], []),
    ],
)
def test_the_shell_completes_verbs_options_and_files(completion, tmp_path, typed, offered):
    (tmp_path / "cases.txt").touch()
    program = f"""source {shlex.quote(str(completion))}
COMP_WORDS=(gapless "$@"); COMP_CWORD=$#; _gapless; printf '%s\\n' "${{COMPREPLY[@]}}" """
    result = subprocess.run(
        ["bash", "-c", program, "bash", *typed], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert result.stdout.split() == offered


def test_a_shell_without_a_script_is_refused(capsys):
    assert "shell" in refusal(capsys, "completion", "tcsh")


@pytest.mark.parametrize("name", ["search", "data table", "index delete", "caption train"])
def test_help_before_a_verb_is_help_after_it(capsys, name):
    assert printed(capsys, "help", *name.split()) == printed(capsys, *name.split(), "--help")


@pytest.mark.parametrize("family", ["data", "caption"])
@pytest.mark.parametrize("form", ["{} --help", "{} -h", "help {}", "{} help"])
def test_a_family_lists_its_verbs(capsys, family, form):
    text = printed(capsys, *form.format(family).split())
    members = [name for name in VERBS if name.startswith(f"{family} ")]
    assert all(name in text for name in members)
    assert all(name not in text for name in VERBS if name not in members and " " in name)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"], ["help", "help"], ["help", "--help"]])
def test_without_a_verb_help_lists_all(capsys, words):
    text = printed(capsys, *words)
    assert all(name in text for name in VERBS)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("serach C cyst", "'search'"),
        ("data tabel x.csv", "'data table'"),
        ("dat table x.csv", "'data table'"),
        ("dta", "'data'"),
        ("rocov2 folder", "'data rocov2'"),
        ("help embd", "'embed'"),
        ("caption generat run", "'caption generate'"),
        ("search C cyst --moddality text", "--modality"),
        ("search C cyst --image-wieght 1", "--image_weight"),
        ("train phantom-small --data d --out o --loss.temprature 1", "--loss.temperature"),
    ],
)
def test_a_mistyped_word_names_the_nearest(capsys, words, meant):
    assert f"did you mean {meant}?" in refusal(capsys, *words.split())


def test_what_is_like_nothing_lists_what_there_is(capsys):
    assert "known: data dicom, " in refusal(capsys, "frobnicate")
    assert "known: caption train, caption generate, caption calibrate, caption evaluate" in refusal(
        capsys, "caption", "x"
    )
    assert "'data' needs a second word: data dicom, " in refusal(capsys, "data")
    assert "did you mean" not in refusal(capsys, "index", "R", "--data", "d", "--out", "o", "--zzzz")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("search C x --k 2.5", "--k: expected a whole number, got '2.5'"),
        ("search C x --k=", "--k: expected a whole number, got ''"),
        ("search C x --k 0", "--k is at least 1, got 0"),
        ("search C x --k -3", "--k is at least 1, got -3"),
        ("search C x --image_weight half", "--image_weight: expected a number, got 'half'"),
        ("search C x --image-weight 1.5", "--image_weight lies between 0 and 1, got 1.5"),
        ("search C left effusion", "unexpected words: effusion; put what belongs together in quotes"),
        ("search C x --where", "--where: expected a value after it"),
        ("search C x --hybrid=perhaps", "--hybrid: takes no value, got 'perhaps'"),
        ("search", "missing: collection"),
        ("index R", "missing: --data, --out"),
        ("index R --data d --out o --batch_size 0", "--batch_size is at least 1, got 0"),
        ("index R --data d --out o --workers -1", "--workers is at least 0, got -1"),
        ("index R --data d --out o --ann_above -1", "--ann_above is at least 0, got -1"),
        ("serve C --port -1", "--port lies between 0 and 65535, got -1"),
        ("serve C --port 70000", "--port lies between 0 and 65535, got 70000"),
        ("serve C --max_upload_mb 0", "--max_upload_mb lies between 0 and 1000, got 0.0"),
        ("data phantom --out o --num_test many", "--num_test: expected a whole number, got 'many'"),
    ],
)
def test_a_wrong_value_is_a_sentence_about_its_option(capsys, words, sentence):
    assert sentence in refusal(capsys, *words.split())


def test_a_number_of_a_configuration_file_has_the_same_limits(capsys, tmp_path):
    (tmp_path / "c.yaml").write_text("k: 0\n")
    assert "--k is at least 1, got 0" in refusal(capsys, "search", "C", "x", "--config", str(tmp_path / "c.yaml"))


def test_help_imports_no_library():
    heavy = ["torch", "numpy", "scipy", "sklearn", "pyarrow", "PIL", "pydicom", "jsonargparse", "transformers", "yaml"]
    asked = "from gapless.cli.main import main; main(['--help']); main(['data', '--help'])"
    program = f"import sys; {asked}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
    assert "data table" in result.stdout


def test_the_help_of_a_verb_imports_no_model_library():
    """transformers takes seconds to import, and the options of no verb need it."""
    asked = [["close", "--help"], ["close", "--method", "adapter", "--help"], ["caption", "train", "--help"]]
    asked += [["caption", "generate", "--help"], ["caption", "evaluate", "--help"], ["measure", "--help"]]
    program = f"""
import sys
from gapless.cli.main import main
for words in {asked}:
    try: main(words)
    except SystemExit: pass
print([name for name in ("transformers", "accelerate", "datasets", "sklearn", "peft") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
    assert result.stdout.count("usage: gapless ") == len(asked)


def test_the_summaries_that_are_read_from_the_source_are_those_of_the_readers():
    expected = {name: (reader.summary, reader.example) for name, reader in READERS.items()}
    assert {name: lines for name, lines in reader_summaries().items() if name in expected} == expected
    assert all(example for _, example in expected.values())
    assert len(expected) >= 6
