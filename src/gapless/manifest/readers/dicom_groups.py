"""Groups DICOM files by patient or study, from their identifiers alone, and reports doubtful identifiers.

A PatientID joins files, and so does a StudyInstanceUID or a SeriesInstanceUID: a study is of one patient, so a file
whose PatientID was removed stays with its study. The relation is transitive. IssuerOfPatientID does not part equal
PatientIDs, and AccessionNumber and FrameOfReferenceUID join nothing: the first is often missing, the others are
shared by strangers. No identifier leaves this module: messages count, and quote nothing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from gapless.images.dicom_header import identifier

BY_PATIENT, BY_STUDY = "patient", "study"
GROUPINGS = (BY_PATIENT, BY_STUDY)
_STUDY_ELEMENTS = ("StudyInstanceUID", "SeriesInstanceUID")
_ELEMENTS = {BY_PATIENT: ("PatientID", *_STUDY_ELEMENTS), BY_STUDY: _STUDY_ELEMENTS}
# What de-identification writes in place of a PatientID. Such a patient groups as any other; it is only reported.
_PLACEHOLDER = re.compile(
    r"(?:anonym\w*|anon|unknown|de-?ident\w*|removed|hidden|patient|subject|pseudonym\w*|no ?(?:id|name)|test|x+|0+|9+)"
)
MANY_STUDIES = 10

Identifiers = Mapping[str, str]


def group_files(files: Sequence[Identifiers], by: str = BY_PATIENT) -> list[int]:
    """A number per file, equal where files must not be split.

    Args:
        files: of each file its identifiers by element ("PatientID", ...); "" where it has none.
        by: "patient", or "study" where the PatientIDs are not to be trusted.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes: dict[tuple[str, str], int] = {}
    edges = [
        (number, nodes.setdefault((element, value), len(files) + len(nodes)))
        for number, file in enumerate(files)
        for element in _ELEMENTS[by]
        if (value := identifier(file.get(element)))
    ]
    if not edges:
        return list(range(len(files)))
    size = len(files) + len(nodes)
    one_end, other_end = np.array(edges).T
    graph = coo_array((np.ones(len(edges), dtype=np.int8), (one_end, other_end)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    return [int(label) for label in labels[: len(files)]]


def doubts(files: Sequence[Identifiers], groups: Sequence[int], by: str = BY_PATIENT) -> Iterator[str]:
    """Sentences about identifiers that make groups too large or too small; none quotes a value."""
    nameless = sum(not any(identifier(file.get(element)) for element in _ELEMENTS[by]) for file in files)
    if nameless:
        elements = " nor ".join(_ELEMENTS[by])
        yield f"{nameless} of {len(files)} images have neither {elements}: each is a group of its own"
    patients = _studies_by_patient(files)
    studies = set().union(*patients.values())
    if len(set(groups)) == 1 and len(files) > 1:
        yield _one_group(len(files), len(patients), len(studies))
    if len(set(groups)) == 1 or by != BY_PATIENT:
        return
    largest = max(map(len, patients.values()), default=0)
    placeholders = [patient for patient, own in patients.items() if len(own) > 1 and _PLACEHOLDER.fullmatch(patient)]
    if placeholders:
        count = sum(len(patients[patient]) for patient in placeholders)
        yield f"a PatientID that looks like a placeholder joins {count} of {len(studies)} studies. {_REMEDY}"
    elif len(studies) >= MANY_STUDIES and 2 * largest > len(studies):
        yield f"one PatientID joins {largest} of {len(studies)} studies. {_REMEDY}"
    if joined := _studies_of_several(files):
        yield f"{joined} of {len(studies)} studies hold more than one PatientID: these patients are one group"


_REMEDY = (
    "If it is not one person, group by study with --group-by study (images of one person may then stand in two "
    "splits), or name a column of the reports with --group-key"
)


def _one_group(num_files: int, num_patients: int, num_studies: int) -> str:
    if num_patients <= 1 and num_studies <= 1:
        return f"all {num_files} images are of one study: they are one group, which no split can part"
    if num_patients == 1:
        return f"all {num_files} images have the same PatientID: they are one group, which no split can part. {_REMEDY}"
    return (
        f"all {num_files} images are one group: a StudyInstanceUID or SeriesInstanceUID that several patients share "
        "joins them. If these UIDs are placeholders, name a column of the reports with --group-key"
    )


def _study(number: int, file: Identifiers) -> str:
    """What counts as one study of a file: without any UID the file itself."""
    return next((value for element in _STUDY_ELEMENTS if (value := identifier(file.get(element)))), f"file {number}")


def _studies_by_patient(files: Sequence[Identifiers]) -> dict[str, set[str]]:
    studies: dict[str, set[str]] = {}
    for number, file in enumerate(files):
        if patient := identifier(file.get("PatientID")):
            studies.setdefault(patient, set()).add(_study(number, file))
    return studies


def _studies_of_several(files: Sequence[Identifiers]) -> int:
    patients: dict[str, set[str]] = {}
    for file in files:
        study, patient = identifier(file.get("StudyInstanceUID")), identifier(file.get("PatientID"))
        if study and patient:
            patients.setdefault(study, set()).add(patient)
    return sum(len(own) > 1 for own in patients.values())
