"""Our trainers override methods of transformers that are not its public interface: a change of one is seen here."""

import inspect

import pytest
from transformers import Trainer

from gapless.captioning.training import CaptionTrainer
from gapless.training.trainer import AlignerTrainer, RunTrainer

# As in transformers 5: what the overriding methods were written against.
PRIVATE = {
    "_get_output_dir": "self, trial",
    "_get_train_sampler": "self, train_dataset=None",
    "_init_training_state": (
        "self, max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial"
    ),
    "_load_best_model": "self",
    "_load_from_checkpoint": "self, resume_from_checkpoint, model=None",
    "_maybe_log_save_evaluate": (
        "self, tr_loss, grad_norm, model, trial, epoch, ignore_keys_for_eval, start_time, learning_rate=None"
    ),
    "_run_epoch": (
        "self, model, epoch, train_dataloader, steps_in_epoch, num_update_steps_per_epoch, trial, "
        "ignore_keys_for_eval, start_time, resume_from_checkpoint, epochs_trained, steps_trained_in_current_epoch"
    ),
    "_save": "self, output_dir=None, state_dict=None",
    "_save_checkpoint": "self, model, trial",
}


def overridden(trainer: type) -> set[str]:
    """Methods with an underscore that a trainer of gapless and transformers' own both define."""
    own = {name for name, value in vars(trainer).items() if name.startswith("_") and inspect.isfunction(value)}
    return {name for name in own if not name.startswith("__") and hasattr(Trainer, name)}


def signature_of(name: str) -> str:
    """The parameters of a method of transformers without their types, which change more often than their meaning."""
    parameters = inspect.signature(getattr(Trainer, name)).parameters.values()
    return ", ".join(str(one.replace(annotation=inspect.Parameter.empty)) for one in parameters)


def test_every_private_method_that_is_overridden_is_written_down() -> None:
    found = set().union(*(overridden(trainer) for trainer in (RunTrainer, AlignerTrainer, CaptionTrainer)))
    assert found == PRIVATE.keys()


@pytest.mark.parametrize("name", PRIVATE)
def test_a_private_method_still_has_the_parameters_that_it_had(name: str) -> None:
    assert signature_of(name) == PRIVATE[name]


def test_another_parameter_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "_save_checkpoint", lambda self, model, trial, more=None: None)
    assert signature_of("_save_checkpoint") != PRIVATE["_save_checkpoint"]
