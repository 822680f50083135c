"""Who can reach a server, and how what is said is kept from others on the way. Catches: a server that is open to a
network by oversight, an old TLS, a client that holds a connection by never agreeing on how to encrypt, a limit on slow
clients that TLS takes away, a proxy in front that does not fit."""

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from certificates import make_certificate
from headrace.access import keys
from headrace.client import Client
from headrace.errors import BadConfig, BadInput, Unavailable
from headrace.server.running import start_server
from headrace.workspace import Workspace, open_workspace
from server.conftest import new_workspace
from stub_model import Server, running

HEAD_S, SLACK_S = 1.0, 4.0
SOUND = {"task": "tone", "channel": "web", "inputs": [{"text": "positive"}]}
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
NGINX_CONF = Path(__file__).parents[2] / "runs" / "nginx.conf"


@dataclass(frozen=True)
class Secured:
    server: Server
    certificate: Path
    key: str

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.server.url.rpartition(":")[2])


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, plugin_env: dict[str, str]) -> Iterator[Secured]:
    """A server with TLS and keys that other machines could reach."""
    root = new_workspace(tmp_path_factory.mktemp("tls") / "ws")
    certificate, _ = make_certificate(root)
    with open_workspace(root) as ws:
        key = keys.create(ws, "x", scopes=["predict", "audit:read"]).key
    settings = {"access__certificate": "server.pem", "access__private_key": "server-key.pem"}
    limits = {"serve__header_timeout_s": HEAD_S, "serve__body_timeout_s": HEAD_S, "serve__host": "0.0.0.0"}
    with running(root, plugin_env, **settings, **limits, access__hosts='["proxy.test"]') as server:
        yield Secured(server, certificate, key)


def connect(secured: Secured, **options: object) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(secured.certificate))
    for name, value in options.items():
        setattr(context, name, value)
    link = socket.create_connection(secured.address, timeout=10)
    return context.wrap_socket(link, server_hostname="localhost")


def closed_after(link: socket.socket) -> float:
    began_at = time.monotonic()
    link.settimeout(20)
    with suppress(ConnectionError, ssl.SSLError):
        while link.recv(4096):
            pass
    return time.monotonic() - began_at


def test_what_is_said_is_encrypted(secured: Secured) -> None:
    assert secured.server.url.startswith("https://127.0.0.1:")
    with Client(secured.server.url, key=secured.key, certificates=secured.certificate) as client:
        assert client.predict("tone", "web", ["positive"])["predictions"][0]["label"] == "positive"
    with (
        Client(secured.server.url, key=secured.key) as stranger,
        pytest.raises(Unavailable, match="CERTIFICATE_VERIFY"),
    ):
        stranger.predict("tone", "web", ["positive"], timeout_s=0.5)
    with connect(secured) as link:
        assert link.version() == "TLSv1.3"
        assert link.selected_alpn_protocol() is None
    with pytest.raises(BadInput, match="no certificates"):
        Client(secured.server.url, certificates="nowhere.pem")


def test_an_old_tls_is_refused(secured: Secured) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(secured.address, timeout=10) as link, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(link, server_hostname="localhost")
    with connect(secured, maximum_version=ssl.TLSVersion.TLSv1_2) as link:
        assert link.version() == "TLSv1.2"


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", LIVE], ids=["silent", "begins", "speaks HTTP"])
def test_a_client_that_does_not_agree_on_how_to_encrypt_is_cut(secured: Secured, sent: bytes) -> None:
    with socket.create_connection(secured.address) as link:
        link.sendall(sent)
        assert closed_after(link) < HEAD_S + SLACK_S


@pytest.mark.parametrize("sent", [b"", b"GET / HT", LIVE.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n")])
def test_slow_clients_are_cut_over_tls_too(secured: Secured, sent: bytes) -> None:
    with connect(secured) as link:
        link.sendall(sent)
        assert closed_after(link) < HEAD_S + SLACK_S


@pytest.mark.parametrize(
    ("sent", "within_s"),
    [(LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), HEAD_S), (b"GET / HT", HEAD_S + 5)],
    ids=["answered", "cut"],
)
def test_a_client_that_does_not_say_goodbye_is_let_go(secured: Secured, sent: bytes, within_s: float) -> None:
    process = psutil.Process(secured.server.process.pid)
    with connect(secured) as link:
        link.sendall(sent)
        assert link.recv(8) == b"HTTP/1.1"
        mine, until = link.getsockname()[1], time.monotonic() + within_s + SLACK_S
        while any(one.raddr and one.raddr.port == mine for one in process.net_connections("tcp")):
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.mark.slow
def test_an_idle_client_does_not_keep_a_server_that_is_told_to_stop(root: Path, plugin_env: dict[str, str]) -> None:
    certificate, _ = make_certificate(root)
    settings = {"access__certificate": "server.pem", "access__private_key": "server-key.pem"}
    with running(root, plugin_env, **settings) as server, connect(Secured(server, certificate, "")) as idle:
        idle.sendall(LIVE)
        assert idle.recv(8) == b"HTTP/1.1"
        server.process.terminate()
        assert server.process.wait(15) == 0


def test_names_of_a_server_that_others_reach(secured: Secured) -> None:
    with httpx.Client(
        base_url=secured.server.url, verify=ssl.create_default_context(cafile=str(secured.certificate))
    ) as http:
        for host, status in (("proxy.test", 200), ("Proxy.Test:443", 200), ("127.0.0.1", 200), ("evil.test", 400)):
            assert http.get("/v2/health/live", headers={"Host": host}).status_code == status
        assert http.get("/v1/models").status_code == 401


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"access.certificate": "server.pem"}, "access.private_key"),
        ({"access.private_key": "server-key.pem"}, "access.certificate"),
        ({"access.certificate": "none.pem", "access.private_key": "server-key.pem"}, "cannot be read"),
        ({"access.certificate": "server.pem", "access.private_key": "other-key.pem"}, "cannot be used"),
        ({"access.certificate": "server.pem", "access.private_key": "locked-key.pem"}, "cannot be used"),
        ({"access.certificate": "headrace.toml", "access.private_key": "server-key.pem"}, "cannot be used"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_told(workspace: Workspace, settings: dict[str, str], words: str) -> None:
    make_certificate(workspace.root)
    make_certificate(workspace.root, name="other")
    make_certificate(workspace.root, name="locked", password=b"secret")
    with open_workspace(workspace.root, overrides=settings) as ws, pytest.raises(BadConfig, match=words):
        start_server(ws, port=0)


def test_keys_in_clear_over_a_network_are_warned_of(root: Path, plugin_env: dict[str, str]) -> None:
    with open_workspace(root) as ws:
        keys.create(ws, "x", scopes=["predict"])
    with running(root, plugin_env, serve__host="0.0.0.0") as server:
        assert "in clear" in server.log.read_text()
        assert server.url.startswith("http://127.0.0.1:")
        assert httpx.post(f"{server.url}/v1/predict", json=SOUND).status_code == 401


@pytest.fixture
def nginx(tmp_path: Path, secured: Secured) -> Iterator[str]:
    """nginx with the example configuration, before the server of `secured`; its URL."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    make_certificate(tmp_path)
    text = NGINX_CONF.read_text("utf-8")
    changes = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "server 127.0.0.1:8000;": f"server 127.0.0.1:{secured.address[1]};",
        "proxy_pass http://headrace;": "proxy_pass https://headrace;",  # the server of these tests has TLS itself
        "/etc/ssl/headrace.pem": str(tmp_path / "server.pem"),
        "/etc/ssl/headrace-key.pem": str(tmp_path / "server-key.pem"),
        "headrace.example.org": "localhost",
        "/run/nginx.pid": str(tmp_path / "nginx.pid"),
        "/var/log/nginx": str(tmp_path),
    }
    for was, becomes in changes.items():
        assert was in text, was
        text = text.replace(was, becomes)
    (tmp_path / "nginx.conf").write_text(text, "utf-8")
    command = [program, "-e", str(tmp_path / "error.log"), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    process = subprocess.Popen([*command, "-g", "daemon off;"])
    try:
        until = time.monotonic() + 10
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        yield f"https://localhost:{port}"
    finally:
        process.terminate()
        process.wait(10)


def test_the_example_of_a_proxy_works(nginx: str, tmp_path: Path, secured: Secured) -> None:
    with Client(nginx, key=secured.key, certificates=tmp_path / "server.pem") as client:
        assert client.predict("tone", "web", ["positive"])["predictions"][0]["label"] == "positive"
    trusted = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
    with httpx.Client(base_url=nginx, verify=trusted, timeout=20) as http:
        assert http.get("/v1/models").status_code == 401
        assert http.get("/v2/health/live", headers={"Host": "evil.test"}).status_code in (400, 421, 444)
        too_long = http.post(f"/v1/predict?key={secured.key}", content=b"x" * (17 * 2**20))
        assert too_long.status_code == 413
        http.get(f"/v1/models?key={secured.key}")
    logged = (tmp_path / "access.log").read_text("utf-8")
    assert "/v1/models" in logged
    assert secured.key.split("_")[3] not in logged + (tmp_path / "error.log").read_text("utf-8")
