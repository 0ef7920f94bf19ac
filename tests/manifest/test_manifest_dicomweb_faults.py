"""What a DICOMweb server may do wrong, and what becomes of the rows, the credentials and the work that was done."""

import gzip
import json
from functools import partial

import numpy as np
import pytest
from dicom_samples import dicom_bytes
from fake_dicomweb import Answer, FakeDicomWeb, File, multipart, running_fake

from gapless.core.errors import DataRefused, NeedsNetwork, UsageError
from gapless.manifest.readers.base import READERS

pytest.importorskip("pydicom")
pytest.importorskip("dicomweb_client")
from gapless.pacs import server as dicomweb_server
from gapless.pacs import session as dicomweb_session

SECRET = "ZZSECRET"


def file(number: int, study: str = "1.2.1", **elements) -> File:
    pixels = np.random.default_rng(number).integers(0, 255, (16, 12)).astype(np.uint8)
    uid = f"{study}.1.{number}"
    names = {"PatientName": SECRET, "StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "Modality": "CT"}
    return File(study, f"{study}.1", uid, dicom_bytes(pixels, SOPInstanceUID=uid, **names, **elements))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(dicomweb_session, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(dicomweb_session, "LONGEST_WAIT", 0.0)
    for name in (dicomweb_session.TOKEN, dicomweb_session.USER, dicomweb_session.PASSWORD):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake():
    with running_fake([file(number) for number in (1, 2, 3)]) as server:
        yield server


@pytest.fixture
def reports(tmp_path):
    path = tmp_path / "reports.csv"
    path.write_text("study,report\n1.2.1,a nodule\n")
    return path


def fetch(server: FakeDicomWeb, tmp_path, reports, **options):
    return READERS["dicomweb"].build(server.url, tmp_path / "m", reports=reports, workers=1, connections=1, **options)


def answering(part: str, *answers: Answer | None):
    """The answers to the first requests whose path has the part; the last one for all later ones."""
    return lambda path, times: answers[min(times, len(answers) - 1)] if part in path else None


def reasons(manifest) -> dict[str, int]:
    return dict(manifest.info["skipped"])


SECOND = "/instances/1.2.1.1.2"


@pytest.mark.parametrize(
    "answer",
    [Answer(500), Answer(503, headers=(("Retry-After", "1"),)), Answer(429), multipart(b"DICM", end=b""),
     multipart(b"DICM")._replace(cut=1000), multipart(b"DICM")._replace(headers=(("Content-Encoding", "gzip"),))],
)  # fmt: skip
def test_a_failure_that_passes_is_tried_again(fake, tmp_path, reports, answer):
    fake.fault = answering(SECOND, answer, answer, None)
    manifest = fetch(fake, tmp_path, reports)
    assert manifest.info["counts"] == {"read": 3, "kept": 3, "skipped": 0}
    assert fake.requests.count(f"/studies/1.2.1/series/1.2.1.1{SECOND}") == 3


@pytest.mark.parametrize(
    ("answer", "reason", "times"),
    [
        (Answer(404), "missing image", 1),
        (Answer(403), "not permitted", 1),
        (Answer(500), "server error", 5),
        (multipart(b"DICM", end=b""), "server error", 5),
        (Answer(200, "text/html", f"<p>{SECRET}</p>".encode()), "not a DICOM file", 1),
        (multipart(b"<html>", kind=b"text/html"), "not a DICOM file", 1),
        (multipart(f"<p>{SECRET}</p>".encode() * 30), "not a DICOM file", 1),
        (multipart(file(3).content), "another file", 1),
        (multipart(file(2).content[:-150]), "unreadable image", 1),
    ],
)
def test_a_file_that_does_not_come_is_a_bad_row(fake, tmp_path, reports, answer, reason, times, capfd, caplog):
    fake.fault = answering(SECOND, answer)
    manifest = fetch(fake, tmp_path, reports, max_bad=0.5)
    assert reasons(manifest) == {reason: 1}
    assert manifest.info["counts"] == {"read": 3, "kept": 2, "skipped": 1}
    skipped = (manifest.path / "skipped.jsonl").read_text()
    assert json.loads(skipped)["row"] == "study 1, file 2"
    assert fake.requests.count(f"/studies/1.2.1/series/1.2.1.1{SECOND}") == times
    assert SECRET not in skipped + caplog.text + "".join(capfd.readouterr())
    with pytest.raises(DataRefused, match="1 of 3 rows") as caught:
        READERS["dicomweb"].build(fake.url, tmp_path / "strict", reports=reports, workers=1)
    assert "1.2.1.1" not in str(caught.value)


def test_a_file_without_pixels_is_a_bad_row(tmp_path, reports):
    import io

    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(file(2).content))
    del dataset.PixelData
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset)
    with running_fake([file(1), file(2)._replace(content=stream.getvalue())]) as fake:
        assert reasons(fetch(fake, tmp_path, reports, max_bad=0.5)) == {"unreadable image": 1}


@pytest.mark.parametrize("answer", [Answer(404), Answer(body=b"[]"), Answer(204)])
def test_a_study_that_vanishes_is_a_bad_row(tmp_path, reports, answer):
    reports.write_text("study,report\n1.2.1,a nodule\n1.2.2,another\n")
    with running_fake([file(1), file(1, "1.2.2")]) as fake:
        fake.fault = answering("/studies/1.2.2/instances", answer)
        manifest = fetch(fake, tmp_path, reports, max_bad=0.9)
    assert manifest.info["counts"] == {"read": 3, "kept": 1, "skipped": 2}  # its report has no file either
    assert reasons(manifest) == {"missing image": 2}


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (Answer(401), UsageError, "refuses the credentials .status 401.: set GAPLESS_DICOMWEB_TOKEN"),
        (Answer(404), UsageError, "status 404: is this its DICOMweb address"),
        (Answer(200, "text/html", SECRET.encode()), DataRefused, "something other than DICOM JSON"),
        (Answer(200, body=b'[["x"]]'), DataRefused, "holds no list of DICOM data sets"),
        (Answer(500), NeedsNetwork, "status 500; try again later"),
        (Answer(200, body=b"[]"), DataRefused, "no file has this report"),
    ],
)
def test_a_query_that_fails_ends_the_command(fake, tmp_path, reports, answer, error, message):
    fake.fault = answering("/studies", answer)
    with pytest.raises(error, match=message) as caught:
        fetch(fake, tmp_path, reports)
    assert SECRET not in str(caught.value)
    assert not (tmp_path / "m").exists()


def test_credentials_do_not_follow_a_redirect_to_another_host(fake, tmp_path, reports, monkeypatch):
    monkeypatch.setenv(dicomweb_session.TOKEN, "zz-token")
    with running_fake([file(1)]) as other:
        target = other.url.replace("127.0.0.1", "localhost")
        for status in (301, 302, 307):
            fake.fault = answering("/studies", Answer(status, headers=(("Location", f"{target}/studies"),)))
            with pytest.raises(UsageError, match="sends to another host") as caught:
                fetch(fake, tmp_path, reports)
            assert "zz-token" not in str(caught.value)
        assert other.requests == []
    fake.fault = lambda path, times: None
    fetch(fake, tmp_path, reports)
    assert fake.authorizations[-1] == "Bearer zz-token"  # the control: it is sent where it belongs


def test_a_redirect_on_the_same_host_is_followed(fake, tmp_path, reports):
    fake.fault = answering(SECOND, Answer(302, headers=(("Location", "/studies/1/series/1/instances/1.2.1.1.2"),)))
    fake.fault = lambda path, times, moved=fake.fault: moved(path, times) if "series/1.2" in path else None
    assert fetch(fake, tmp_path, reports).info["counts"]["kept"] == 3


@pytest.mark.parametrize("is_packed", [True, False])
def test_an_answer_above_the_limit_is_a_bad_row(fake, tmp_path, reports, monkeypatch, is_packed):
    monkeypatch.setattr(dicomweb_server, "Server", partial(dicomweb_server.Server, limit=1 << 20))
    huge = multipart(bytes(40 << 20))
    if is_packed:
        huge = huge._replace(body=gzip.compress(huge.body), headers=(("Content-Encoding", "gzip"),))
        assert len(huge.body) < 1 << 20
    fake.fault = answering(SECOND, huge)
    assert reasons(fetch(fake, tmp_path, reports, max_bad=0.5)) == {"file too large": 1}


@pytest.mark.parametrize("error", [NeedsNetwork, KeyboardInterrupt])
def test_what_was_fetched_is_not_fetched_again(fake, tmp_path, reports, monkeypatch, error):
    original = dicomweb_server.Server.fetch

    def fetch_the_first(self, instance):
        if instance.keys["SOPInstanceUID"] != "1.2.1.1.1":
            raise error("stopped")
        return original(self, instance)

    monkeypatch.setattr(dicomweb_server.Server, "fetch", fetch_the_first)
    with pytest.raises(error):
        fetch(fake, tmp_path, reports)
    (copy,) = (tmp_path / ".m.resume" / "fetched").iterdir()
    assert SECRET.encode() not in copy.read_bytes()
    monkeypatch.setattr(dicomweb_server.Server, "fetch", original)
    fake.requests.clear()
    manifest = fetch(fake, tmp_path, reports)
    assert manifest.info["counts"]["kept"] == 3
    assert [path.rpartition("/")[2] for path in fake.requests if "/series/" in path] == ["1.2.1.1.2", "1.2.1.1.3"]
    assert not (tmp_path / ".m.resume").exists()
    whole = READERS["dicomweb"].build(fake.url, tmp_path / "n", reports=reports, workers=1)
    assert whole.table.equals(manifest.table)


def test_credentials_that_expire_keep_what_was_fetched(fake, tmp_path, reports):
    fake.fault = answering(SECOND, Answer(401))
    with pytest.raises(NeedsNetwork, match="no longer accepts the credentials"):
        fetch(fake, tmp_path, reports)
    assert list((tmp_path / ".m.resume" / "fetched").iterdir())


def test_a_server_that_fails_all_the_time_is_left(tmp_path, reports, monkeypatch):
    with running_fake([file(number) for number in range(1, 30)]) as fake:
        monkeypatch.setattr(dicomweb_session, "MAX_ATTEMPTS", 1)
        fake.fault = answering("/series/", Answer(500))
        with pytest.raises(NeedsNetwork, match="failed to give 20 files in a row"):
            fetch(fake, tmp_path, reports)
    with pytest.raises(NeedsNetwork, match="cannot be reached"):
        fetch(fake, tmp_path, reports)  # nobody listens any more


def test_pages_and_filters_that_a_server_does_not_know(tmp_path, reports):
    with running_fake([*(file(number) for number in range(1, 6)), file(1, "1.2.9")]) as fake:
        fake.page, fake.knows_filters = 2, False
        assert fetch(fake, tmp_path, reports).info["counts"] == {"read": 5, "kept": 5, "skipped": 0}
        assert not any("1.2.9" in path for path in fake.requests)
        fake.page, fake.knows_offsets = 1000, False
        again = READERS["dicomweb"].build(fake.url, tmp_path / "n", reports=reports, workers=1)
        assert again.info["counts"]["kept"] == 5


def test_a_value_of_the_table_that_would_ask_for_everything_is_not_asked(fake, tmp_path, reports):
    reports.write_text("study,report\n1.2.1,a nodule\n*,everything\n")
    manifest = fetch(fake, tmp_path, reports, max_bad=0.5)
    assert manifest.info["counts"] == {"read": 4, "kept": 3, "skipped": 1}
    assert fake.requests.count("/studies") == 2  # its page, and the empty one after it


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://pacs/dicom-web", "looks like https://"),
        ("pacs", "looks like https://"),
        ("https://anna:zz-word@pacs.example/dicom-web", "write no credentials"),
        ("https://pacs.example/dicom-web?token=zz-word", "write no credentials"),
        ("http://pacs.example/dicom-web", "unencrypted"),
    ],
)
def test_an_address_that_is_not_to_be_used(tmp_path, reports, monkeypatch, url, message):
    monkeypatch.setenv(dicomweb_session.TOKEN, "zz-token")
    with pytest.raises(UsageError, match=message) as caught:
        fetch(FakeDicomWeb([], url), tmp_path, reports)
    assert "zz-" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reports": None}, "name the studies to fetch"),
        ({"reports": None, "study": "1.2.1", "label_keys": "age"}, "'age' needs a table"),
        ({"match": "path"}, "a server has no paths"),
        ({"match": "SeriesInstanceUID"}, "is not asked by SeriesInstanceUID"),
        ({"connections": 0}, "at least 1"),
    ],
)
def test_options_that_contradict_each_other(fake, tmp_path, reports, options, message):
    with pytest.raises(UsageError, match=message):
        READERS["dicomweb"].build(fake.url, tmp_path / "m", **{"reports": reports, **options})
    assert fake.requests == []


def test_a_certificate_of_nobody_is_refused_until_told_otherwise(tmp_path, reports, caplog):
    pem = tmp_path / "pem"
    pem.write_bytes(self_signed())
    with running_fake([file(1)], pem) as fake:
        with pytest.raises(UsageError, match=r"certificate of .* cannot be verified"):
            fetch(fake, tmp_path, reports)
        assert fetch(fake, tmp_path, reports, unverified_tls=True).info["counts"]["kept"] == 1
    assert "certificates are not verified" in caplog.text


def self_signed() -> bytes:
    pytest.importorskip("cryptography")
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return private + certificate.public_bytes(serialization.Encoding.PEM)
