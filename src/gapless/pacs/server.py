"""Queries a DICOMweb server (QIDO-RS) and fetches instances (WADO-RS), by `dicomweb-client`.

Nothing that a server says is quoted: its answers hold names and identifiers.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dicomweb_client import DICOMwebClient

from gapless.core.errors import DataRefused, NeedsNetwork, UsageError
from gapless.images.dicom_file import import_pydicom
from gapless.images.dicom_header import JOIN_ELEMENTS, identifier
from gapless.images.limits import MAX_BYTES, ImageRefused
from gapless.pacs.session import (
    WHERE_CREDENTIALS,
    Cut,
    LimitedSession,
    RequestFailed,
    with_retries,
)

PAGE = 500  # results of a query that are asked for at once
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_LOGGERS = ("dicomweb_client", "dicomweb_client.web", "urllib3", "urllib3.connectionpool", "requests", "retrying")
_FIELDS = ("PatientID", "AccessionNumber", "Modality", "SOPClassUID")
# Basic text, enhanced, comprehensive and comprehensive 3D: the reports among the structured documents.
REPORT_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.88.{number}" for number in (11, 22, 33, 34))


@dataclass(frozen=True)
class Instance:
    """A file that the server lists.

    Args:
        origin: what messages call it: its place in the order of UIDs.
        keys: identifiers by element, of `JOIN_ELEMENTS`; never written.
        sop_class: its kind by the standard; "" where the server does not say.
        modality: its `Modality`; "" where the server does not say.
    """

    origin: str
    keys: Mapping[str, str]
    sop_class: str
    modality: str

    @property
    def is_report(self) -> bool:
        return self.sop_class in REPORT_CLASSES

    @property
    def may_have_pixels(self) -> bool:
        """False for classes of the standard that are neither images nor waveforms: presentation states, plans, ..."""
        keyword = import_pydicom().uid.UID(self.sop_class).keyword
        return not keyword or "Image" in keyword or "Waveform" in keyword


class Server:
    """A DICOMweb service; every thread has a session of its own.

    Args:
        url: its address, from `check_address`.
        is_unverified: as of `LimitedSession`.
        limit: bytes of one answer.
    """

    def __init__(self, url: str, is_unverified: bool = False, limit: int = MAX_BYTES) -> None:
        self.url = url
        self.is_unverified = is_unverified
        self.limit = limit
        self._own = threading.local()
        for name in _LOGGERS:  # they quote addresses, and identifiers are part of these
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    def _client(self) -> Any:
        if not hasattr(self._own, "client"):
            self._own.session = LimitedSession(self.url, self.limit, self.is_unverified)
            self._own.client = DICOMwebClient(self.url, session=self._own.session)
            self._own.client.set_http_retry_params(retry=False)  # `with_retries` repeats cut bodies and more statuses
        return self._own.client

    def studies(self, filters: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """The studies that a query gives: StudyInstanceUID -> PatientID and AccessionNumber.

        A study that does not have the StudyInstanceUID, PatientID or AccessionNumber that was asked for is left out:
        there are servers that ignore a filter.

        Raises:
            UsageError: wrong credentials, or no DICOMweb service at the address.
            NeedsNetwork: the server cannot be reached, or fails.
            DataRefused: an answer that is no DICOM JSON.
        """
        client = self._client()
        studies: dict[str, dict[str, str]] = {}
        for found in self._pages(lambda **page: client.search_for_studies(search_filters=dict(filters), **page)):
            keys = {name: _value(found, name) for name in ("StudyInstanceUID", "PatientID", "AccessionNumber")}
            if _UID.fullmatch(keys["StudyInstanceUID"]) and _agrees(keys, filters):
                studies[keys["StudyInstanceUID"]] = keys
        return studies

    def instances(self, study: Mapping[str, str], number: int) -> list[Instance]:
        """The instances of a study, in the order of their UIDs; none when the study is gone.

        Args:
            study: its identifiers, as `studies` gives them.
            number: its place, for messages.

        Raises: as `studies`.
        """
        client, uid = self._client(), study["StudyInstanceUID"]
        listed: dict[tuple[str, str], Mapping[str, Any]] = {}
        for found in self._pages(lambda **page: client.search_for_instances(uid, **page), is_study=True):
            place = (_value(found, "SeriesInstanceUID"), _value(found, "SOPInstanceUID"))
            if all(map(_UID.fullmatch, place)):
                listed[place] = found
        return [
            Instance(
                f"study {number}, file {count}",
                {
                    **dict.fromkeys(JOIN_ELEMENTS, ""),
                    **study,
                    "SeriesInstanceUID": place[0],
                    "SOPInstanceUID": place[1],
                },
                _value(listed[place], "SOPClassUID"),
                _value(listed[place], "Modality"),
            )
            for count, place in enumerate(sorted(listed), 1)
        ]

    def _pages(self, search: Callable[..., Any], is_study: bool = False) -> Iterator[Mapping[str, Any]]:
        """Every result of a query, page by page; a server that knows no pages gives the same ones again."""
        seen: set[tuple[str, ...]] = set()
        while page := self._query(lambda: search(limit=PAGE, offset=len(seen), fields=_FIELDS), is_study):
            before = len(seen)
            for found in page:
                place = tuple(_value(found, f"{level}InstanceUID") for level in ("Study", "Series", "SOP"))
                if place not in seen:
                    seen.add(place)
                    yield found
            if len(seen) == before:
                return

    def _query(self, search: Callable[[], Any], is_study: bool) -> list[Mapping[str, Any]]:
        try:
            page = with_retries(self.url, search)
        except RequestFailed as failure:
            if failure.status in (401, 403):
                raise UsageError(f"{self.url} refuses the credentials ({failure.what}): {WHERE_CREDENTIALS}") from None
            if failure.status in (404, 410) and is_study:
                return []
            if 400 <= failure.status < 500:
                raise UsageError(
                    f"{self.url} answers a query with {failure.what}: is this its DICOMweb address?"
                ) from None
            raise NeedsNetwork(f"{self.url} answers a query with {failure.what}; try again later") from None
        except (UsageError, NeedsNetwork):  # the first is a ValueError too
            raise
        except (ValueError, KeyError, TypeError):
            raise DataRefused(
                f"{self.url} answers a query with something other than DICOM JSON: is this its DICOMweb address, and "
                "not that of its page or of a login?"
            ) from None
        if not isinstance(page, list) or not all(isinstance(found, dict) for found in page):
            raise DataRefused(f"{self.url} answers a query with JSON that holds no list of DICOM data sets")
        return page

    def fetch(self, instance: Instance) -> bytes:
        """The DICOM file, as the server stores it.

        Raises:
            ImageRefused: the server does not give it, gives something else, or more than the limit.
            NeedsNetwork: the server cannot be reached, or no longer accepts the credentials.
        """
        try:
            return with_retries(self.url, lambda: self._retrieve(instance))
        except RequestFailed as failure:
            if failure.status == 403:
                raise ImageRefused("not permitted", "the server does not give the file to this user") from None
            if failure.status == 401:
                raise NeedsNetwork(
                    f"{self.url} no longer accepts the credentials ({failure.what}); what was fetched is kept, and the "
                    "same command continues"
                ) from None
            if failure.status in (404, 410):
                raise ImageRefused("missing image", "the server lists the file and does not have it") from None
            if failure.what.startswith("more bytes"):
                raise ImageRefused("file too large", f"the server sends more than {self.limit} bytes") from None
            raise ImageRefused("server error", f"the server answers with {failure.what}") from None

    def _retrieve(self, instance: Instance) -> bytes:
        study, series, sop = (instance.keys[f"{level}InstanceUID"] for level in ("Study", "Series", "SOP"))
        # `client.retrieve_instance` gives data sets, and takes a body that is cut: the bytes are needed as they are.
        self._client()
        response = self._own.session.get(
            f"{self.url}/studies/{study}/series/{series}/instances/{sop}",
            headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'},
        )
        response.raise_for_status()
        return _one_part(response.headers.get("Content-Type", ""), response.content)


def _one_part(content_type: str, body: bytes) -> bytes:
    """The file in an answer of WADO-RS.

    Raises:
        ImageRefused: not one DICOM file.
        Cut: the last boundary is missing.
    """
    kind, _, parameters = content_type.partition(";")
    if kind.strip().lower() == "application/dicom":  # some servers send the file alone
        return body
    boundary = re.search(r'boundary="?([^";\s]+)"?', parameters, re.IGNORECASE)
    if kind.strip().lower() != "multipart/related" or boundary is None:
        raise ImageRefused("not a DICOM file", "the server answers with another kind of content")
    mark = b"--" + boundary[1].encode()
    if mark + b"--" not in body[-len(mark) - 100 :]:
        raise Cut
    whole = body[: body.rindex(mark + b"--")].removesuffix(b"\r\n")
    start = whole.find(mark)
    head, _, content = whole[start:].partition(b"\r\n\r\n")
    if start < 0 or not content or b"\r\n" + mark + b"\r\n" in content:
        raise ImageRefused("not a DICOM file", "the server answers with no file, or with several")
    if b"text/html" in head.lower():
        raise ImageRefused("not a DICOM file", "the server answers with a page")
    return content


def _value(found: Mapping[str, Any], keyword: str) -> str:
    """The first value of an element of DICOM JSON as text; "" where it has none."""
    tag = import_pydicom().datadict.tag_for_keyword(keyword)
    entry = found.get(f"{tag:08X}")
    values = entry.get("Value") if isinstance(entry, dict) else None
    first = values[0] if isinstance(values, list) and values else ""
    return str(first).strip() if isinstance(first, str | int | float) else ""


def _agrees(keys: Mapping[str, str], filters: Mapping[str, str]) -> bool:
    """Whether a study has the identifiers that were asked for; a filter with wildcards is not compared."""
    exact = {name: value for name, value in filters.items() if name in keys and not set(value) & set("*?\\")}
    return all(identifier(keys[name]) == identifier(value) for name, value in exact.items())
