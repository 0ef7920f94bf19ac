"""Whatever goes wrong in the first of two processes is raised in both, so that the other waits for nothing."""

import json
import multiprocessing
import socket
from types import SimpleNamespace

import first_ranks
import pytest

from gapless.training.first_rank import by_first


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What each of two processes met, case by case."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "used").mkdir()
    (folder / "used" / "x").write_text("")
    (folder / "file").write_text("")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")  # what takes long, the imports, is done already
    outs = [folder / f"{rank}.json" for rank in range(2)]
    processes = [
        context.Process(target=first_ranks.work, args=(rank, 2, port, folder, out)) for rank, out in enumerate(outs)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        process.kill()  # one that waits for the other for ever
    assert [process.exitcode for process in processes] == [0, 0]
    return [json.loads(out.read_text()) for out in outs]


def test_a_result_reaches_both(outcomes):
    assert outcomes[0]["a result"] == outcomes[1]["a result"] == ["gave", {"age": [1.5, 2.0]}]
    assert outcomes[0]["written"] == outcomes[1]["written"] == ["gave", None]


@pytest.mark.parametrize("name", ["DataRefused", "UsageError", "NeedsNetwork"])
def test_a_refusal_keeps_its_class_and_its_words(outcomes, name):
    expected = [name, str(first_ranks.FAILURES[name])]
    assert outcomes[0][name] == outcomes[1][name] == expected


@pytest.mark.parametrize("name", ["OSError", "MemoryError", "ValueError"])
def test_any_other_failure_is_named_in_the_other_process(outcomes, name):
    error = first_ranks.FAILURES[name]
    assert outcomes[0][name] == [name, str(error)]
    kind, said = outcomes[1][name]
    assert kind == "GaplessError"
    assert said.startswith(f"the first process failed: {name}: ")


def test_statistics_that_cannot_be_fitted_end_both(outcomes):
    assert outcomes[0]["fitted"][0] == "OSError"
    assert outcomes[1]["fitted"] == [
        "GaplessError",
        "the first process failed: OSError: [Errno 28] No space left on device",
    ]


def test_a_directory_that_the_first_cannot_have_ends_both(outcomes):
    assert outcomes[0]["claimed"] == outcomes[1]["claimed"] == ["gave", "inside"]
    assert outcomes[0]["in use"] == outcomes[1]["in use"]
    assert outcomes[0]["in use"][0] == "UsageError"
    assert outcomes[0]["not written"][0] == "FileExistsError"
    assert outcomes[1]["not written"][0] == "GaplessError"


@pytest.mark.parametrize(("name", "number"), [("first of all", 0), ("second of all", 1)])
def test_a_failure_of_any_process_ends_both(outcomes, name, number):
    assert outcomes[number][name] == ["OSError", "[Errno 28] No space left on device"]
    who = ("the first process", "process 1")[number]
    expected = f"{who} failed: OSError: [Errno 28] No space left on device"
    assert outcomes[1 - number][name] == ["GaplessError", expected]


def test_a_refusal_of_the_second_process_keeps_its_class(outcomes):
    expected = ["DataRefused", str(first_ranks.FAILURES["DataRefused"])]
    assert outcomes[0]["refused by the second"] == outcomes[1]["refused by the second"] == expected
    assert outcomes[0]["none of all"] == outcomes[1]["none of all"] == ["gave", None]


@pytest.mark.parametrize(("rank", "step"), first_ranks.SAVES)
def test_a_checkpoint_that_one_process_cannot_save_ends_both(outcomes, rank, step):
    name = f"save {rank} {step}"
    if step == "none":
        assert outcomes[0][name] == outcomes[1][name] == ["gave", None]
    else:
        assert outcomes[rank][name][0] == "OSError"
        assert outcomes[1 - rank][name][0] == "GaplessError"
        assert "No space left on device" in outcomes[1 - rank][name][1]
    assert outcomes[0][f"partial {rank} {step}"] == ["gave", []]


def test_one_process_alone_asks_nobody():
    assert by_first(SimpleNamespace(world_size=1), lambda: 5) == 5
