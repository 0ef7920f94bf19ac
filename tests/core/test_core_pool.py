"""Workers end with the process that started them, however it ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

from gapless.core.pool import new_executor, stop_executor

PROGRAM = """
import os, time
from gapless.core.pool import map_in_order

def work(number):
    time.sleep(0.05)
    return os.getpid()

if __name__ == "__main__":
    for pid in map_in_order(work, range(100_000), 1, num_workers=2):
        print(pid, flush=True)
"""


def is_alive(pid: int) -> bool:
    """Whether there is such a process, zombies aside (nobody may wait for those of a parent that was killed)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(tmp_path, how):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    running = subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert running.stdout is not None
    workers = {int(running.stdout.readline()) for _ in range(20)}
    assert running.pid not in workers
    assert all(map(is_alive, workers))
    if how == signal.SIGINT:
        os.killpg(running.pid, how)  # as a terminal does
    else:
        running.kill()
    end = time.monotonic() + 20
    while any(map(is_alive, workers)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(is_alive, workers))
    _, said = running.communicate(timeout=20)
    if how == signal.SIGINT:
        assert said.count("Traceback") == 1, said
        assert said.strip().endswith("KeyboardInterrupt")


def test_an_executor_is_stopped_at_once_and_quietly(recwarn):
    for number in range(6):
        executor = new_executor(2)
        begun = time.monotonic()
        futures = [executor.submit(time.sleep, 0.01 if number % 2 else 30) for _ in range(5)]
        if number % 2:
            futures[0].result()
        stop_executor(executor, futures)
        assert time.monotonic() - begun < 20
        assert all(future.done() for future in futures)
    assert not [str(one.message) for one in recwarn if "ExecutorManagerThread" in str(one.message)]
