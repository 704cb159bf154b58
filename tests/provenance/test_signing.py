from __future__ import annotations

import datetime
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vidswap.errors import OutputError, UsageError
from vidswap.provenance import MarkInfo, SignerFiles, check_signer, mark_output, read_mark, signing
from vidswap.provenance.signing import credentials_from, signing_folder

NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDSWAP_HOME", str(tmp_path / "home"))


def _chain(credentials) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(credentials.chain_pem)


def _own_files(folder: Path, *, days: float = 90.0, start: datetime.datetime | None = None):
    """A user's own authority and leaf, through the room's maker of certificates."""
    start = start or datetime.datetime.now(datetime.timezone.utc)
    authority = signing._make(None, start, 1000)
    leaf = signing._make(authority, start, int(days))
    chain, key = folder / "own.crt", folder / "own.key"
    chain.write_bytes(signing._pem(leaf.certificate) + signing._pem(authority.certificate))
    key.write_bytes(signing._key_pem(leaf.key))
    return SignerFiles(chain, key)


def test_the_local_signer_is_made_once_private_and_anonymous():
    first, second = credentials_from(None), credentials_from(None)
    assert first == second
    folder = signing_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("authority.pem", "signer.pem"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert b"PRIVATE" not in (folder / "authority.crt").read_bytes()
    leaf, authority = _chain(first)
    leaf.verify_directly_issued_by(authority)
    names = f"{leaf.subject.rfc4514_string()} {authority.subject.rfc4514_string()}"
    assert os.uname().nodename not in names and "PRIVATE" not in repr(first)
    check_signer()


_FIRST_USE = """
import sys
from vidswap.provenance.signing import credentials_from
sys.stdout.write("r"); sys.stdout.flush(); sys.stdin.read(1)
sys.stdout.write(credentials_from(None).chain_pem.decode())
"""


def test_first_use_by_several_runs_at_once_gives_one_signer():
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", _FIRST_USE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for run in runs:
        assert run.stdout.read(1) == b"r"
    for run in runs:
        run.stdin.write(b"g")
        run.stdin.flush()
    chains = {run.communicate(timeout=30)[0] for run in runs}
    assert len(chains) == 1 and chains.pop().count(b"BEGIN CERTIFICATE") == 2
    assert not [name for name in os.listdir(signing_folder()) if name.endswith(".tmp")]


def test_the_leaf_is_renewed_yearly_by_the_same_authority():
    first = credentials_from(None, now=NOW)
    assert credentials_from(None, now=NOW + 300 * DAY) == first
    later = credentials_from(None, now=NOW + 400 * DAY)
    assert later.chain_pem != first.chain_pem
    assert _chain(later)[1] == _chain(first)[1]
    assert _chain(later)[0].not_valid_after_utc > NOW + (400 + 9 * 365) * DAY


@pytest.mark.parametrize("years", [-2, 2, 25, 60])
def test_a_clock_that_jumps_gives_certificates_valid_at_its_time(years):
    credentials_from(None, now=NOW)
    then = NOW + years * 365 * DAY
    leaf, authority = _chain(credentials_from(None, now=then))
    for certificate in (leaf, authority):
        assert certificate.not_valid_before_utc < then < certificate.not_valid_after_utc
    assert leaf.not_valid_after_utc <= authority.not_valid_after_utc
    leaf.verify_directly_issued_by(authority)
    again = _chain(credentials_from(None, now=NOW))[0]
    assert again.not_valid_before_utc < NOW < again.not_valid_after_utc


@pytest.mark.parametrize("name", ["authority.pem", "signer.pem"])
@pytest.mark.parametrize("damage", [b"", b"-----BEGIN", "cut", "swapped"])
def test_a_damaged_store_is_made_anew(name, damage, caplog):
    credentials_from(None)
    path = signing_folder() / name
    other = signing_folder() / ({"authority.pem", "signer.pem"} - {name}).pop()
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:300], "swapped": other.read_bytes()}.get(damage, damage))
    path.chmod(0o600)
    check_signer()
    leaf, authority = _chain(credentials_from(None))
    leaf.verify_directly_issued_by(authority)


def test_loose_permissions_are_tightened(caplog):
    credentials_from(None)
    path = signing_folder() / "signer.pem"
    path.chmod(0o644)
    credentials_from(None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and "readable by others" in caplog.text


def test_a_folder_that_cannot_be_made_is_exit_4(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("VIDSWAP_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="VIDSWAP_HOME"):
        check_signer()


def test_without_vidswap_home_the_users_data_folder_is_used(tmp_path, monkeypatch):
    monkeypatch.delenv("VIDSWAP_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if sys.platform.startswith("linux"):
        assert signing_folder() == tmp_path / "data" / "vidswap" / "signing"


def test_a_users_own_certificate_signs(tmp_path):
    from PIL import Image

    files = _own_files(tmp_path)
    check_signer(files)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    mark_output(tmp_path / "a.png", tmp_path / "b.png", claim=MarkInfo("1", "g"), signer=files)
    assert read_mark(tmp_path / "b.png").has_valid_mark
    assert not signing_folder().exists()


def test_unusable_certificates_are_wrong_use_with_the_reason(tmp_path):
    files = _own_files(tmp_path)
    missing = tmp_path / "none.key"
    cases = [(SignerFiles(files.certificate_chain, missing), "cannot read the private key")]
    text = tmp_path / "text.pem"
    text.write_text("hello")
    cases.append((SignerFiles(text, files.private_key), "no PEM certificates"))
    cases.append((SignerFiles(files.certificate_chain, text), "no PEM private key"))
    (tmp_path / "b").mkdir()
    other = _own_files(tmp_path / "b")
    cases.append((SignerFiles(files.certificate_chain, other.private_key), "does not belong"))
    (tmp_path / "c").mkdir()
    old = _own_files(tmp_path / "c", days=2, start=NOW - 2000 * DAY)
    cases.append((old, "valid from"))
    locked = tmp_path / "locked.key"
    key = serialization.load_pem_private_key(files.private_key.read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    cases.append((SignerFiles(files.certificate_chain, locked), "password"))
    for bad, reason in cases:
        with pytest.raises(UsageError, match=reason) as caught:
            check_signer(bad)
        assert "\n" not in str(caught.value)


def test_a_lone_self_signed_leaf_is_refused_before_any_work(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    name = signing._name("alone")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - DAY).not_valid_after(now + DAY)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "a.crt").write_bytes(signing._pem(certificate))
    (tmp_path / "a.key").write_bytes(signing._key_pem(key))
    with pytest.raises(UsageError, match="emailProtection"):
        check_signer(SignerFiles(tmp_path / "a.crt", tmp_path / "a.key"))
