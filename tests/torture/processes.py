"""Processes forked from one that is ready: what torch and the data cost to load is paid once for hundreds of kills."""

import os
import sys
import threading
import traceback
from collections.abc import Callable

from tqdm import tqdm

from gapless.core.errors import GaplessError

# A fork copies what threads hold, and tqdm's lock is one for all processes: who is killed with it stops the others.
tqdm.monitor_interval = 0
tqdm.set_lock(threading.RLock())


def forked(work: Callable[[], object]) -> int:
    """Do `work` in a child process; its id. It ends with the exit code that the command line would give."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        work()
        code = 0
    except GaplessError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # nothing of the parent's, such as its fixtures, is torn down twice


def exit_code(process: int) -> int:
    """What the child ended with; minus the number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
