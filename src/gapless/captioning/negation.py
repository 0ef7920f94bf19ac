"""Which words of a sentence deny or doubt what stands before or after them.

A cue has a kind and a scope, as in NegEx (Chapman et al. 2001, doi:10.1006/jbin.2001.1029) and ConText (Harkema et al.
2009, doi:10.1016/j.jbi.2009.05.002); words and rules are our own. The longest cue at a place counts, so that
"no change in" denies nothing. English only.
"""

from collections.abc import Sequence
from enum import StrEnum


class Cue(StrEnum):
    """What a cue does: `AFTER` it, `BEFORE` it, or `EITHER`: after it where a finding follows, else before."""

    DENIES_AFTER = "denies after"
    DENIES_BEFORE = "denies before"
    DENIES_EITHER = "denies either"
    DOUBTS_AFTER = "doubts after"
    DOUBTS_BEFORE = "doubts before"
    DOUBTS_EITHER = "doubts either"
    DOUBTS_BOTH = "doubts both"  # versus
    DROPS_AFTER = "drops after"  # what was taken out is neither there nor denied
    PLAIN = "plain"  # contains the words of a cue and is none
    STOP = "stop"  # no scope reaches beyond it
    COMMA = "comma"
    OR = "or"
    AND = "and"


_SEEN = (
    "seen identified visualized visualised present demonstrated detected noted evident appreciated observed found "
    "apparent visible confirmed suspected revealed shown depicted recognized"
)
_BE = ("", "is ", "are ", "was ", "were ", "be ", "been ")
_STATES = [f"{be}{seen}" for be in _BE[1:5] for seen in _SEEN.split() if seen != "suspected"]

_PHRASES: dict[Cue, Sequence[str]] = {
    Cue.DENIES_AFTER: [
        *(
            "no",
            "not",
            "without",
            "denies",
            "denied",
            "never",
            "neither",
            "nor",
            "none of",
            "rather than",
            "instead of",
        ),
        *(
            "negative for",
            "free of",
            "free from",
            "clear of",
            "clear from",
            "absence of",
            "lack of",
            "lacks",
            "lacking",
        ),
        *("fails to", "failed to", "failure to", "excludes", "excluded the", "resolution of", "ruled out for"),
    ],
    Cue.DENIES_BEFORE: [
        *("absent", "is absent", "are absent", "has been ruled out", "have been ruled out", "was ruled out"),
        *("is ruled out", "are ruled out", "were ruled out", "is excluded", "was excluded", "are excluded"),
        *("were excluded", "has been excluded", "have been excluded", "has cleared", "have cleared"),
        *(f"{be}not {how}{seen}" for be in _BE for how in ("", "clearly ", "definitely ") for seen in _SEEN.split()),
    ],
    Cue.DENIES_EITHER: ["resolved", "has resolved", "have resolved", "no longer", "no longer seen", "disappeared"],
    Cue.DOUBTS_AFTER: [
        *("possible", "possibly", "probable", "probably", "questionable", "question of", "potential", "presumed"),
        *("suspicious for", "suspicion of", "suspicion for", "concern for", "concerning for", "worrisome for"),
        *("suggestive of", "suggesting", "suggests", "suggest", "favor", "favors", "favoring", "raising concern for"),
        *("cannot exclude", "can not exclude", "not exclude", "cannot rule out", "can not rule out", "not rule out"),
        *("rule out", "ruling out", "evaluate for", "evaluation for", "assess for", "to exclude", "query"),
        *("not certain whether", "not certain if", "unclear whether", "uncertain whether", "unclear if"),
        *("possibility of", "differential diagnosis includes", "differential includes", "differential diagnosis"),
        *("equivocal for", "indeterminate for", "not clear whether", "not clear if"),
        *("whether there is", "whether there are", "if there is", "if there are", "whether"),
    ],
    Cue.DOUBTS_BEFORE: [
        *("cannot be excluded", "can not be excluded", "not excluded", "not be excluded", "is not excluded"),
        *("cannot be ruled out", "can not be ruled out", "not ruled out", "not be ruled out", "is not ruled out"),
        *("has not been excluded", "not entirely excluded", "should be excluded", "to be excluded", "must be excluded"),
        *("is questioned", "is questionable", "is equivocal", "is possible", "are possible", "is not certain"),
    ],
    Cue.DOUBTS_EITHER: [
        *("may", "might", "could", "would", "likely", "is likely", "are likely", "most likely", "unlikely"),
        *("is unlikely", "are unlikely", "suspected", "is suspected", "are suspected", "was suspected"),
        *("considered", "should be considered"),
    ],
    Cue.DOUBTS_BOTH: ["versus", "vs"],
    Cue.DROPS_AFTER: ["removal of", "removal of the", "interval removal of the", "resection of", "family history of"],
    Cue.PLAIN: [
        *("no change", "no change in", "no interval change", "no interval change in", "no significant change"),
        *("no significant change in", "no significant interval change", "no significant interval change in"),
        *("no increase", "no increase in", "no decrease", "no decrease in", "no improvement in", "no progression of"),
        *("without change", "without change in", "without significant change", "not changed", "not significantly"),
        *("not only", "not without", "not free of", "not negative for", "not absent", "not just", "not necessarily"),
        *("consistent with", "compatible with", "in keeping with", "along with", "associated with", "together with"),
        *("as well as", "no matter"),
    ],
    Cue.STOP: [
        *(";", ":", "but", "but also", "however", "although", "though", "whereas", "while", "yet", "otherwise"),
        *("except", "except for", "apart from", "aside from", "other than", "besides", "which", "because"),
        *("there is", "there are", "there was", "there were", "with", "secondary to", "due to"),
        *("shows", "showed", "showing", "demonstrates", "demonstrated", "demonstrating", "reveals", "revealed"),
        *("present", "persists", "persist", "remains", "remain", "is unchanged", "are unchanged", "is enlarged"),
        *(", the", ", a", ", an", ", there", ", this", ", it", "and a", "and an", "and the", "and there"),
        *_STATES,
    ],
    Cue.COMMA: [","],
    Cue.OR: ["or", "and / or", ", or", "and or", ", nor"],
    Cue.AND: ["and", ", and"],
}
CUES: dict[str, dict[tuple[str, ...], Cue]] = {}
for _cue, _phrases in _PHRASES.items():
    for _phrase in _phrases:
        _words = tuple(_phrase.split())
        CUES.setdefault(_words[0], {})[_words] = _cue


def longest_cue(tokens: Sequence[str], start: int) -> tuple[Cue, int] | None:
    """The longest cue that begins at a token, and its number of tokens."""
    fitting = [
        (cue, len(words))
        for words, cue in CUES.get(tokens[start], {}).items()
        if tuple(tokens[start : start + len(words)]) == words
    ]
    return max(fitting, key=lambda one: one[1], default=None)
