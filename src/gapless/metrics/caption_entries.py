"""The entries of the clinical scores of captions, which `captioning/clinical.py` counts."""

from gapless.metrics.catalogue import FIGURES, Better, FigureEntry
from gapless.metrics.figure_entries import CAPTION

EXTRACTOR = "read by rules from a vocabulary, in English: docs/captioning.md says how often they are right"
BY_LABELLER = "what a labeller with weights of its own reads (--labeller)"
NEGATION = "NegEx, Chapman et al. 2001, and ConText, Harkema et al. 2009, for the idea"


def _entry(key: str, label: str, meaning: str, better: Better, misleads: str, short: str = "") -> FigureEntry:
    return FigureEntry(
        key,
        label,
        meaning,
        low=0.0,
        high=1.0,
        better=better,
        family=CAPTION,
        short=short,
        unit="fraction",
        misleads=misleads,
        cost="decoding",
        needs="generated captions",
        source=NEGATION if key.startswith("caption/findings/") else "",
    )


ENTRIES = (
    _entry(
        "caption/findings/precision",
        "findings, precision",
        "of the findings that captions name (present or uncertain), the share that a reference names",
        "higher",
        f"{EXTRACTOR}; a caption that names nothing has none",
        "precision",
    ),
    _entry(
        "caption/findings/recall",
        "findings, recall",
        "of the findings that references name, the share that the caption names",
        "higher",
        f"{EXTRACTOR}; rises with the length of captions",
        "recall",
    ),
    _entry(
        "caption/findings/F1",
        "findings, F1",
        "harmonic mean of the two, of counts summed over rows",
        "higher",
        f"{EXTRACTOR}; common findings weigh most, and a constant caption that names them scores",
        "F1",
    ),
    _entry(
        "caption/findings/denied_F1",
        "denied findings, F1",
        "the same of findings that are denied",
        "higher",
        "what a reference does not deny may be absent all the same",
        "denied F1",
    ),
    _entry(
        "caption/findings/confused",
        "findings confused",
        "of the findings that caption and reference both speak of, the share that one names and the other denies",
        "lower",
        "says nothing of findings that the caption leaves out",
        "confused",
    ),
    _entry(
        "caption/findings/side_errors",
        "side errors",
        "of the findings that both name with a side, the share with another side (left, right, both)",
        "lower",
        "few findings have a side in both: look at the interval",
        "wrong side",
    ),
    _entry(
        "caption/numbers/F1",
        "numbers, F1",
        "numbers with their unit (lengths in mm) that stand in caption and reference",
        "higher",
        "exact: 2 cm and 21 mm differ; ages and years count as well as sizes",
        "numbers F1",
    ),
    _entry(
        "caption/<labeller>/precision",
        "<labeller>, precision",
        "of the findings that captions name, the share that a reference names",
        "higher",
        BY_LABELLER,
    ),
    _entry(
        "caption/<labeller>/recall",
        "<labeller>, recall",
        "of the findings that references name, the share that the caption names",
        "higher",
        BY_LABELLER,
    ),
    _entry("caption/<labeller>/F1", "<labeller>, F1", "harmonic mean of the two", "higher", BY_LABELLER),
    _entry(
        "caption/<labeller>/denied_F1", "<labeller>, denied F1", "the same of denied findings", "higher", BY_LABELLER
    ),
    _entry(
        "caption/<labeller>/confused",
        "<labeller>, confused",
        "of the findings that both speak of, the share that one names and the other denies",
        "lower",
        BY_LABELLER,
    ),
    _entry(
        "caption/<labeller>/side_errors",
        "<labeller>, side errors",
        "of the findings that both name with a side, the share with another side",
        "lower",
        BY_LABELLER,
    ),
)
for entry in ENTRIES:
    FIGURES.add(entry.key, entry)
