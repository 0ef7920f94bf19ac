"""Writes captions like those of case reports by a grammar.

They have synonyms, abbreviations, omissions, negations, sentences that the image does not show, and lengths like those
of ROCO (median about 115 characters, 95th percentile about 330). Every statement about the image is true.
"""

import math
import random

from gapless.phantom import vocabulary as words
from gapless.phantom.cases import FINDINGS, NORMAL, Figure, pick

MEDIAN_LENGTH = 106
LENGTH_SPREAD = 0.6
_SHORT = 40


def write_caption(figure: Figure) -> str:
    """The caption of a figure; the same for the same figure."""
    rng = random.Random(f"caption/{figure.caption_seed}")
    # Wording that all captions of an article share: always "radiograph", always terms spelt out, ...
    habits = random.Random(f"habits/{figure.style.seed}")
    target = MEDIAN_LENGTH * figure.style.verbosity * math.exp(LENGTH_SPREAD * _normal(rng))
    exam = _exam(figure, rng, habits, brief=target < _SHORT)
    if target < _SHORT and rng.random() < 0.6:
        return _sentence(exam)
    text = _core(figure, exam, rng, habits)
    used: set[str] = set()
    while len(text) < target - 25:
        extra = _extra(figure, rng)
        if extra not in used:
            used.add(extra)
            text = f"{text} {_sentence(extra)}"
    if figure.letter and rng.random() < 0.3:
        text = f"({figure.letter.lower()}) {text}"
    return text


def _normal(rng: random.Random) -> float:
    """A normal number by Box-Muller, because `random.gauss` may change its stream between Python versions."""
    return math.sqrt(-2 * math.log(1 - rng.random())) * math.cos(2 * math.pi * rng.random())


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _article(phrase: str) -> str:
    return f"{'an' if phrase[:1].lower() in 'aeiou' else 'a'} {phrase}"


def _exam(figure: Figure, rng: random.Random, habits: random.Random, brief: bool) -> str:
    """ "axial CT scan of the chest"; parts are left out at random."""
    if rng.random() < 0.08 and not brief:
        return pick(rng, ("imaging", "preoperative image", "follow-up study", "initial study"))
    mode = (
        pick(habits, words.MODES[figure.modality_type])
        if rng.random() < 0.8
        else pick(rng, words.MODES[figure.modality_type])
    )
    if figure.modality_type == "MR" and rng.random() < 0.4:
        mode = f"{pick(rng, words.WEIGHTINGS[figure.style.weighting])} {mode}"
    if figure.modality_type == "x-ray" and figure.region == "chest" and rng.random() < 0.2:
        return "CXR"
    view = pick(rng, words.VIEWS[figure.view]) if rng.random() < 0.5 else ""
    region = pick(rng, words.REGIONS[figure.region])
    draw = rng.random()
    if draw < 0.22:
        exam = mode
    elif draw < 0.68:
        exam = f"{mode} of the {region}"
    else:
        exam = f"{region} {mode}"
    if view and figure.modality_type == "x-ray" and rng.random() < 0.4:
        return f"{exam}, {view} view"
    return f"{view} {exam}".strip()


def _finding(figure: Figure, rng: random.Random) -> str:
    """ "a small left-sided cyst in the upper lobe", in pieces that may be missing."""
    nouns = words.NOUNS[figure.finding]
    noun = words.PLACED_NOUNS.get((figure.finding, figure.region), "") if rng.random() < 0.6 else ""
    noun = noun or pick(rng, nouns)
    plural = figure.side == "bilateral" or noun.endswith("s")
    described = [noun]
    if rng.random() < 0.45:
        described.insert(0, pick(rng, words.ADJECTIVES[figure.finding]))
    if rng.random() < 0.55:
        described.insert(0, pick(rng, words.SIZES[figure.size]))
    placed, says_side = _place(figure, rng)
    if figure.side == "bilateral" and rng.random() < 0.9:
        described.insert(0, "bilateral")
    elif figure.side in ("left", "right") and not says_side and rng.random() < 0.75:
        described.insert(0, pick(rng, words.SIDES[figure.side]))
    phrase = " ".join(described)
    if plural and not noun.endswith("s") and figure.finding not in words.MASS_NOUNS:
        phrase += "es" if noun.endswith("ss") else "s"
    if not plural and figure.finding not in words.MASS_NOUNS:
        phrase = _article(phrase)
    if rng.random() < 0.12:
        phrase += f" measuring {_millimetres(figure, rng)}"
    return f"{phrase} {placed}".strip()


def _place(figure: Figure, rng: random.Random) -> tuple[str, bool]:
    """("in the left upper lobe", True): where it is, and whether the side was said."""
    if rng.random() < 0.3:
        return "", False
    usual, other = words.PLACES[figure.region][figure.zone]
    place = usual if rng.random() < 0.6 else other
    if figure.side in ("left", "right") and rng.random() < 0.7:
        return f"in the {pick(rng, words.SIDE_WORDS[figure.side])} {place}", True
    return f"in the {place}", False


def _millimetres(figure: Figure, rng: random.Random) -> str:
    low, high = {"small": (4, 12), "medium": (14, 28), "large": (32, 75)}[figure.size]
    size = low + int(rng.random() * (high - low))
    return f"{size} mm" if rng.random() < 0.6 else f"{size / 10:.1f} cm"


def _core(figure: Figure, exam: str, rng: random.Random, habits: random.Random) -> str:
    arrow = pick(rng, (" (arrow)", " (white arrow)", " (arrows)", ", arrow")) if figure.arrow else ""
    patient = f" in {pick(rng, words.PATIENTS).format(age=8 + int(rng.random() * 80))}" if rng.random() < 0.2 else ""
    if figure.finding == NORMAL:
        return _sentence(f"{exam}{patient} {pick(rng, words.NORMAL)}")
    if rng.random() < 0.06:
        return _sentence(f"{exam}{patient}{arrow}")
    finding = _finding(figure, rng)
    verb = pick(habits, words.VERBS) if rng.random() < 0.6 else pick(rng, words.VERBS)
    form = rng.random()
    if form < 0.55:
        text = f"{exam}{patient} {verb} {finding}{arrow}"
    elif form < 0.7:
        text = f"{finding}{arrow} on {exam}{patient}"
    elif form < 0.82:
        text = f"{_sentence(exam + patient)} {_sentence(finding + arrow)}"
    elif form < 0.92:
        verb = "There is" if finding.startswith(("a ", "an ")) else "Note"
        text = f"{_sentence(exam + patient)} {verb} {finding}{arrow}"
    else:
        text = f"{finding}{arrow}"
    return _sentence(text)


def _extra(figure: Figure, rng: random.Random) -> str:
    """A further sentence: a negation, a detail that shows, or a story that does not."""
    draw = rng.random()
    if draw < 0.28:
        others = [finding for finding in FINDINGS if finding != figure.finding]
        absent = pick(rng, words.NOUNS[pick(rng, others)])
        return pick(rng, words.NEGATIONS).format(absent=absent)
    if draw < 0.42 and figure.finding != NORMAL:
        place = words.PLACES[figure.region][figure.zone][0]
        return pick(rng, words.DETAILS).format(noun=pick(rng, words.NOUNS[figure.finding]), place=place)
    return pick(rng, words.STORIES).format(
        age=8 + int(rng.random() * 80), days=2 + int(rng.random() * 26), months=2 + int(rng.random() * 22)
    )
