"""TLS by the files that headrace.toml names."""

import ssl
from datetime import datetime

from headrace.errors import BadConfig
from headrace.workspace import Workspace


def context_of(ws: Workspace) -> ssl.SSLContext | None:
    """How a server of the workspace encrypts: TLS 1.2 or later; None where no certificate is named.

    Raises:
        BadConfig: one of the two files is not named, not there, or does not fit the other.
    """
    access = ws.settings.access
    if not access.certificate and not access.private_key:
        return None
    if not (access.certificate and access.private_key):
        missing = "access.private_key" if access.certificate else "access.certificate"
        raise BadConfig("a certificate and its private key go together", value=missing, next_step="Name both files")
    files = (ws.root / access.certificate, ws.root / access.private_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(*files, password=lambda: "")  # without one, OpenSSL asks on the terminal
    except ssl.SSLError as error:
        raise BadConfig(
            f"the certificate cannot be used with this private key: {error.reason or error}",
            value=f"{files[0]}, {files[1]}",
            next_step="Name a certificate in PEM with its chain, and its key in PEM without a password",
        ) from None
    except OSError as error:
        raise BadConfig(
            f"the certificate or its private key cannot be read: {error.strerror}",
            value=f"{files[0]}, {files[1]}",
            next_step="Check access.certificate, access.private_key and the rights of the files",
        ) from None
    return context


def ends_at(ws: Workspace) -> datetime | None:
    """When the certificate stops being valid; None where no certificate is named.

    Raises:
        BadConfig: see `context_of`.
    """
    if context_of(ws) is None:
        return None
    from cryptography import x509  # a server itself needs OpenSSL alone

    own = x509.load_pem_x509_certificate((ws.root / ws.settings.access.certificate).read_bytes())
    return own.not_valid_after_utc
