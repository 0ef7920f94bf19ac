"""HTTP for the DICOMweb reader: credentials, limits, retries, and errors that quote nothing a server says.

Credentials come from the environment (`GAPLESS_DICOMWEB_TOKEN`, or `GAPLESS_DICOMWEB_USER` and
`GAPLESS_DICOMWEB_PASSWORD`) or from netrc. Addresses hold identifiers of patients, so no address of a request and no
text of an answer reaches a message.
"""

import io
import logging
import os
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from gapless.core.errors import NeedsNetwork, UsageError

TOKEN, USER, PASSWORD = "GAPLESS_DICOMWEB_TOKEN", "GAPLESS_DICOMWEB_USER", "GAPLESS_DICOMWEB_PASSWORD"
WHERE_CREDENTIALS = f"set {TOKEN}, or {USER} and {PASSWORD}, or write a line for the host into ~/.netrc"
MAX_ATTEMPTS = 5
FIRST_WAIT = 0.5  # seconds, doubled after each attempt
LONGEST_WAIT = 60.0
TIMEOUTS = (10.0, 120.0)  # seconds to connect, and without a byte
_READ_AT_ONCE = 1 << 16
_PASSING = (408, 425, 429, 500, 502, 503, 504)

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class Cut(Exception):
    """A body that ended too early."""


class TooLarge(Exception):
    """A body above the limit, as it is after unpacking."""


class Elsewhere(Exception):
    """A redirect to another host."""


class _Bearer(requests.auth.AuthBase):
    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def check_address(url: str) -> str:
    """The address of a DICOMweb service, without a final slash.

    Raises:
        UsageError: not http or https, or credentials in it; the message quotes none of it.
    """
    try:
        parts = urlsplit(url)
        is_usable = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        is_usable = False
    if not is_usable or any(character.isspace() for character in url):
        raise UsageError("the address of a DICOMweb service looks like https://pacs.example.org/dicom-web")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UsageError(f"write no credentials and no query into the address: {WHERE_CREDENTIALS}")
    return url.rstrip("/")


class LimitedSession(requests.Session):
    """A session that reads whole bodies up to a limit, and follows no redirect to another host.

    Args:
        url: of the service.
        limit: bytes of a body, after unpacking.
        is_unverified: accept any certificate, and credentials without TLS.

    Raises:
        UsageError: credentials would go over the network unencrypted.
    """

    def __init__(self, url: str, limit: int, is_unverified: bool) -> None:
        super().__init__()
        self.limit = limit
        self.verify = not is_unverified
        if is_unverified:  # the reader says it once, in its own words
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self.auth = _auth_of_environment()
        has_credentials = self.auth is not None or requests.utils.get_netrc_auth(url) is not None
        parts = urlsplit(url)
        if has_credentials and parts.scheme == "http" and not is_unverified and not _is_this_machine(parts.hostname):
            raise UsageError(
                "credentials would go to the server unencrypted: use an https address, or --unverified_tls true if the "
                "network is trusted"
            )

    def get(self, url: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        """As of requests, with the whole body in memory.

        Raises:
            Cut: the body ends too early. TooLarge: it is above the limit. Elsewhere: a redirect to another host.
        """
        options |= {"stream": True, "timeout": TIMEOUTS}
        if not self.verify:  # by the request: REQUESTS_CA_BUNDLE goes before the session's own
            options["verify"] = False
        with super().get(url, **options) as response:
            body = self._body(response)
        whole = requests.Response()
        whole.status_code, whole.headers, whole.url = response.status_code, response.headers, response.url
        whole.raw = io.BytesIO(body)
        return whole

    def _body(self, response: requests.Response) -> bytes:
        announced = response.headers.get("Content-Length", "")
        if announced.isdigit() and int(announced) > self.limit:
            raise TooLarge
        body = bytearray()
        try:
            for chunk in response.iter_content(_READ_AT_ONCE):
                body += chunk
                if len(body) > self.limit:
                    raise TooLarge
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError):
            raise Cut from None
        return bytes(body)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Where a redirect leads. Raises Elsewhere: to where credentials must not go."""
        target = super().get_redirect_target(resp)
        if target is not None and self.should_strip_auth(resp.url, urljoin(resp.url, target)):
            resp.close()
            raise Elsewhere
        return target


def _auth_of_environment() -> Any:
    """Raises UsageError for a name without a password, or the other way."""
    if token := os.environ.get(TOKEN):
        return _Bearer(token)
    user, password = os.environ.get(USER), os.environ.get(PASSWORD)
    if (user is None) != (password is None):
        raise UsageError(f"{USER} and {PASSWORD} belong together, and one of them is not set")
    # in UTF-8, because requests encodes a text as Latin-1
    return None if user is None or password is None else (user.encode(), password.encode())


def _is_this_machine(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False


class RequestFailed(Exception):
    """A request that the server answered, and not with what was asked for.

    Args:
        status: of HTTP.
        what: a phrase for messages.
    """

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status
        self.what = what


def with_retries(url: str, request: Callable[[], Answer]) -> Answer:
    """What a request gives; it is repeated, with growing pauses, after failures that pass.

    Args:
        url: of the service, for messages.
        request: raises what requests and `LimitedSession` raise.

    Raises:
        RequestFailed: the server answers with an error (after the last attempt, if it may pass), with too much, or
            with a body that is cut each time.
        NeedsNetwork: it cannot be reached.
        UsageError: its certificate cannot be verified, or it sends to another host.
    """
    wait = FIRST_WAIT
    for attempt in range(1, MAX_ATTEMPTS + 1):
        pause = wait
        try:
            return request()
        except requests.exceptions.JSONDecodeError:
            raise
        except requests.exceptions.SSLError:
            raise UsageError(
                f"the certificate of {url} cannot be verified: name its authority's file by REQUESTS_CA_BUNDLE, or "
                "give --unverified_tls true"
            ) from None
        except Elsewhere:
            raise UsageError(
                f"{url} sends to another host or port, where credentials do not go: name the final address"
            ) from None
        except TooLarge:
            raise RequestFailed(0, "more bytes than the limit") from None
        except requests.exceptions.HTTPError as error:
            status, headers = getattr(error.response, "status_code", 0), getattr(error.response, "headers", {})
            failure: Exception = RequestFailed(status, f"status {status}")
            if status not in _PASSING:
                raise failure from None
            asked = str(headers.get("Retry-After", ""))
            pause = max(wait, float(asked)) if asked.isdigit() else wait
        except Cut:
            failure = RequestFailed(0, "a body that is cut")
        except requests.exceptions.RequestException as error:
            failure = NeedsNetwork(
                f"{url} cannot be reached ({type(error).__name__}); what was fetched is kept, and the same command "
                "continues"
            )
        if attempt == MAX_ATTEMPTS:
            raise failure from None
        time.sleep(min(pause, LONGEST_WAIT))
        wait *= 2
    raise AssertionError("every attempt returns or raises")
