"""The errors that gapless raises, for those who catch them; each has the exit code of the command (`exit_code`).

GaplessError (1) is the base of UsageError (2), DataRefused (3), NeedsNetwork (4) and Interrupted (130).
"""

from gapless.core.errors import DataRefused, GaplessError, Interrupted, NeedsNetwork, UsageError

__all__ = ["DataRefused", "GaplessError", "Interrupted", "NeedsNetwork", "UsageError"]
