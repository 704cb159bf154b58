"""Who signs: the user's own certificate, or a local one made on first use.

The local certificate claims nothing but "the same installation of vidswap": a reader reports
the mark as valid and its signer as untrusted. It names neither user nor machine. Because a
mark without a timestamp is valid only as long as its certificate, leaves last ten years and
are renewed after one, so that every mark stays readable for nine years at least.
"""

from __future__ import annotations

import datetime
import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vidswap.cache import write_atomically
from vidswap.errors import OutputError, UsageError
from vidswap.locking import FileLock, LockTaken

_LOG = logging.getLogger(__name__)
_AUTHORITY_DAYS = 30 * 365
_LEAF_DAYS = 10 * 365
_RENEW_LEAF_DAYS = 365
_LOCK_SECONDS = 30.0


@dataclass(frozen=True)
class SignerFiles:
    """A signer of the user's own."""

    certificate_chain: Path
    """PEM file: the signing certificate first, then the authorities above it."""
    private_key: Path
    """PEM file of its key, without a password."""


@dataclass(frozen=True)
class Credentials:
    """What the C2PA library signs with."""

    algorithm: str
    """``es256``, ``es384``, ``es512``, ``ps256`` or ``ed25519``."""
    chain_pem: bytes
    key_pem: bytes = field(repr=False)


def signing_folder() -> Path:
    """Where the local certificate lives: ``VIDSWAP_HOME/signing``, or the user's data folder."""
    chosen = os.environ.get("VIDSWAP_HOME", "").strip()
    if chosen:
        return Path(chosen).expanduser().absolute() / "signing"
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        xdg = os.environ.get("XDG_DATA_HOME", "")
        base = Path(xdg) if os.path.isabs(xdg) else Path.home() / ".local" / "share"
    return base / "vidswap" / "signing"


def credentials_from(
    signer: SignerFiles | None, *, now: datetime.datetime | None = None
) -> Credentials:
    """The user's signer, or the local one (made or renewed when needed).

    Args:
        signer: the user's files; None: local.
        now: the time that certificates are judged by (UTC); None: the clock.

    Raises:
        UsageError: the user's files cannot be used.
        OutputError: the local certificate cannot be written.
    """
    now = now or datetime.datetime.now(datetime.timezone.utc)
    return _local(signing_folder(), now) if signer is None else _own(signer, now)


# --- the user's own -----------------------------------------------------------------------------


def _own(files: SignerFiles, now: datetime.datetime) -> Credentials:
    chain_pem = _read_pem(files.certificate_chain, "certificate")
    key_pem = _read_pem(files.private_key, "private key")
    try:
        chain = x509.load_pem_x509_certificates(chain_pem)
    except ValueError as error:
        raise UsageError(
            f"{files.certificate_chain} holds no PEM certificates; give the signing certificate "
            "followed by its authorities"
        ) from error
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except TypeError as error:
        raise UsageError(
            f"the key {files.private_key} has a password; give a copy without one, readable "
            "by you only"
        ) from error
    except ValueError as error:
        raise UsageError(f"{files.private_key} holds no PEM private key; check the file") from error
    leaf = chain[0]
    if _public_bytes(leaf.public_key()) != _public_bytes(key.public_key()):
        raise UsageError(
            f"the key {files.private_key} does not belong to the first certificate of "
            f"{files.certificate_chain}; give the pair"
        )
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        raise UsageError(
            f"the certificate {files.certificate_chain} is valid from "
            f"{leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}, "
            f"and today is {now:%Y-%m-%d}; renew it or correct the clock"
        )
    return Credentials(_algorithm(key, files.private_key), chain_pem, key_pem)


def _read_pem(path: Path, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read the {what} {path}: {error.strerror or error}; check the path"
        ) from error


def _algorithm(key: object, path: Path) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        name = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if key.curve.name in name:
            return name[key.curve.name]
    elif isinstance(key, rsa.RSAPrivateKey):
        if key.key_size >= 2048:
            return "ps256"
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise UsageError(
        f"the key {path} is of a kind that C2PA does not allow; use ECDSA on P-256, P-384 or "
        "P-521, Ed25519, or RSA from 2048 bits"
    )


def _public_bytes(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined, no-any-return]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


# --- the local one ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pair:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def is_current(self, now: datetime.datetime, days: float) -> bool:
        """Valid now and made at most ``days`` ago (also after the clock was set back)."""
        start = self.certificate.not_valid_before_utc
        return start <= now <= start + datetime.timedelta(days=days)


def _local(folder: Path, now: datetime.datetime) -> Credentials:
    try:
        authority, leaf = _kept(folder, now)
    except OSError:
        authority = leaf = None
    if authority is None or leaf is None:  # else the folder need not be one that can be written
        authority, leaf = _made_local(folder, now)
    return Credentials(
        "es256", _pem(leaf.certificate) + _pem(authority.certificate), _key_pem(leaf.key)
    )


def _kept(folder: Path, now: datetime.datetime) -> tuple[_Pair | None, _Pair | None]:
    """Authority and signer that are there and current."""
    authority, leaf = _load(folder / "authority.pem"), _load(folder / "signer.pem")
    if authority is None or not authority.is_current(now, _AUTHORITY_DAYS - _LEAF_DAYS - 1):
        return None, None
    if leaf is None or not leaf.is_current(now, _RENEW_LEAF_DAYS) or not _issued(
        leaf.certificate, authority.certificate
    ):
        leaf = None
    return authority, leaf


def _made_local(folder: Path, now: datetime.datetime) -> tuple[_Pair, _Pair]:
    """The same, with what is missing made."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Two first runs at once must end with one and the same authority.
        with FileLock(folder / "lock", timeout_seconds=_LOCK_SECONDS):
            authority, leaf = _kept(folder, now)
            if authority is None:
                authority = _make(None, now, _AUTHORITY_DAYS)
                _store(folder / "authority.pem", authority)
                write_atomically(folder / "authority.crt", _pem(authority.certificate))
            if leaf is None:
                leaf = _make(authority, now, _LEAF_DAYS)
                _store(folder / "signer.pem", leaf)
    except LockTaken as error:
        raise OutputError(
            f"the signing folder {folder} is held by {error.holder or 'another run'} for over "
            f"{_LOCK_SECONDS:.0f} s; end that run and try again"
        ) from error
    except OSError as error:
        raise OutputError(
            f"cannot keep the local signing certificate in {folder}: {error.strerror or error}; "
            "make the folder writable or set VIDSWAP_HOME to one that is"
        ) from error
    return authority, leaf


def _make(authority: _Pair | None, now: datetime.datetime, days: int) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    is_authority = authority is None
    subject = _name("vidswap local authority" if is_authority else "vidswap local signer")
    issuer = subject if authority is None else authority.certificate.subject
    issuer_key = key if authority is None else authority.key
    start = now.replace(microsecond=0) - datetime.timedelta(days=1)  # clocks of others differ
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(is_authority, 0 if is_authority else None), True)
        .add_extension(_usage(is_authority), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
    )
    if not is_authority:  # C2PA asks for a stated purpose of the signing certificate
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purpose, False)
    return _Pair(key, builder.sign(issuer_key, hashes.SHA256()))


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "vidswap (self-issued)"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _usage(is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _load(path: Path) -> _Pair | None:
    """The pair in a file; None when it is absent, or (with a warning) when it is damaged."""
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            _LOG.warning("%s was readable by others; it is yours only now", path)
            path.chmod(0o600)
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        key = serialization.load_pem_private_key(data, password=None)
        certificate = x509.load_pem_x509_certificate(data)
        if isinstance(key, ec.EllipticCurvePrivateKey) and _public_bytes(
            certificate.public_key()
        ) == _public_bytes(key.public_key()):
            return _Pair(key, certificate)
    except (ValueError, TypeError):
        pass
    _LOG.warning("%s is damaged; making a new one", path)
    return None


def _store(path: Path, pair: _Pair) -> None:
    """Key and certificate in one file, so that they can never be a mismatched pair."""
    write_atomically(path, _key_pem(pair.key) + _pem(pair.certificate), mode=0o600)


def _issued(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        if leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        leaf.verify_directly_issued_by(authority)
    except Exception:  # cryptography raises ValueError, TypeError or InvalidSignature
        return False
    return leaf.not_valid_after_utc <= authority.not_valid_after_utc


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
