"""When a request to stop counts: at the end of a step, so that all processes that train together agree on it."""

import os
import signal
from types import SimpleNamespace

from transformers import TrainerControl, TrainerState

from gapless.training.callbacks import StopRequest

ARGUMENTS = SimpleNamespace(world_size=1)


def end_of_step(request: StopRequest) -> TrainerControl:
    control = TrainerControl()
    request.on_step_end(ARGUMENTS, TrainerState(), control)
    return control


def test_a_signal_counts_at_the_end_of_a_step_and_is_not_lost():
    request = StopRequest()
    request.on_train_begin(ARGUMENTS, TrainerState(), TrainerControl())
    with request.listening():
        assert not end_of_step(request).should_training_stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert not request.was_made, "another process may have ended its step without it"
        for _ in range(2):
            control = end_of_step(request)
            assert request.was_made
            assert control.should_training_stop
            assert control.should_save
