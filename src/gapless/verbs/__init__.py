"""Verbs: what each command of `gapless` takes and does. They give an `Outcome`; only `cli.py` prints it."""
