"""The examples in docs/proxies, run with ports and files of this machine."""
from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.broadcast import free_port
from support.waiting import until

EXAMPLES = Path(__file__).parents[2] / "docs" / "proxies"
NGINX = """daemon off; master_process off; pid {folder}/pid; error_log {folder}/log; events {{ }}
http {{
    access_log off; include /etc/nginx/mime.types;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}"""


def make_certificate(folder: Path) -> Path:
    """Make cert.pem and key.pem of localhost in the folder, and return it."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost", "-out", folder / "cert.pem", "-keyout",
                    folder / "key.pem"], check=True, capture_output=True)
    return folder


def nginx_command(folder: Path, certificate: Path, port: int, servers: Mapping[str, int],
                  example: str = "nginx.conf", **changes: str) -> list[str]:
    """The example with these ports and files; ``changes`` are other values of its directives, "" for none."""
    text = (EXAMPLES / example).read_text()
    for server, number in servers.items():
        assert server in text, server
        text = text.replace(server, f"127.0.0.1:{number}")
    files = {"ssl_certificate": f"{certificate}/cert.pem", "ssl_certificate_key": f"{certificate}/key.pem"}
    for directive, value in {"listen": f"127.0.0.1:{port} ssl", "server_name": "localhost", **files, **changes}.items():
        line = f"{directive} {value};" if value else ""
        text, count = re.subn(rf"\b{directive} [^;]*;", line.replace("\\", r"\\"), text)
        assert count == 1, directive
    (folder / "site.conf").write_text(text)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    return ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "log")]


def caddy_command(folder: Path, certificate: Path, port: int, servers: Mapping[str, int]) -> list[str]:
    text = (EXAMPLES / "Caddyfile").read_text()
    for server, number in servers.items():
        text = text.replace(server, f"127.0.0.1:{number}")
    site = f"https://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls {certificate}/cert.pem {certificate}/key.pem\n"
    assert text.count("dream.example.org {") == 1
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https disable_redirects\n}\n"
                                      + text.replace("dream.example.org {", site))
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@contextmanager
def proxy(kind: str, folder: Path, certificate: Path, upstream: int | Mapping[str, int], port: int = 0,
          **changes: str) -> Iterator[int]:
    """The port of a running proxy before a server, or before those that its example names."""
    if not shutil.which(kind):
        pytest.skip(f"no {kind} here")
    port = port or free_port()
    servers = {"127.0.0.1:7860": upstream} if isinstance(upstream, int) else upstream
    make = nginx_command if kind == "nginx" else caddy_command
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(make(folder, certificate, port, servers, **changes), stdout=output, stderr=output,
                                   env={"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        try:
            until(lambda: is_open(port) or process.poll() is not None, 20)
            assert process.poll() is None, (folder / "output").read_text()
            yield port
        finally:
            process.terminate()
            process.wait(10)


def is_open(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
