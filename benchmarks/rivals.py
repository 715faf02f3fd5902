"""What stands beside this server, and the backend behind all of them.

Each rival is one process (and nginx's master) on one core, keeps its connections to the backend
open, and gets the same requests.  `nginx, duties` does what this server does for each: it knows
the caller by a token, routes by path, takes the prefix off, says where the request came from,
gives it an id, limits its size and times, and writes the same access line every 20 ms.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import attrs
import requests
from attrs import frozen

from benchmarks.children import BenchmarkFailed, Child, Children, free_port, listens, until
from benchmarks.machine import GATEWAY_CORE, LOAD_CORE

BODY = '{"message":"Hello World"}'
TOKEN = "pk_that_no_rival_but_nginx_with_duties_looks_at"

_NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {directory}/{name}.pid;
error_log stderr;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {directory}/{name}-body;
    proxy_temp_path {directory}/{name}-proxy;
    fastcgi_temp_path {directory}/{name}-fastcgi;
    uwsgi_temp_path {directory}/{name}-uwsgi;
    scgi_temp_path {directory}/{name}-scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 75s;
{http}
}}
"""

_BACKEND = """
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        listen unix:{socket} backlog=4096;
        location / {{ default_type application/json; return 200 '{body}'; }}
    }}
"""

_UPSTREAM = """
    upstream backend {{ server {upstream}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
"""

_DUTIES = """
    log_format record escape=json '{{"time":$msec,"id":"$request_id","method":"$request_method",'
        '"route":"$route","principal":"$principal","status":$status,"bytesIn":$request_length,'
        '"bytesOut":$bytes_sent,"seconds":$request_time}}';
    map_hash_bucket_size 256;
    map $http_authorization $principal {{ default ""; "Bearer {token}" "Admin"; }}
    upstream backend {{ server {upstream}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        server_name localhost;
        access_log {directory}/access.log record buffer=64k flush=20ms;
        client_header_timeout 20s;
        client_body_timeout 30s;
        send_timeout 60s;
        client_max_body_size 16m;
        large_client_header_buffers 8 8k;
        location / {{ return 404; }}
        location /app/ {{
            set $route localhost/app;
            if ($principal = "") {{ return 401; }}
            proxy_pass http://backend/;
            proxy_http_version 1.1;
            proxy_read_timeout 30s;
            proxy_set_header Connection "";
            proxy_set_header Authorization "";
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $host;
            proxy_set_header X-Forwarded-Prefix /app;
            proxy_set_header X-Ploinky-User $principal;
            proxy_set_header X-Request-Id $request_id;
            add_header X-Request-Id $request_id;
        }}
    }}
"""

_HAPROXY = """
global
    maxconn {connections}
    nbthread 1
    no strict-limits
defaults
    mode http
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 75s
    timeout server 75s
    timeout http-request 20s
    timeout http-keep-alive 75s
frontend front
    bind 127.0.0.1:{port} backlog 4096
    default_backend back
backend back
    server one {upstream} pool-max-conn 512
"""

_CADDY = """{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port}, http://localhost:{port} {{
    reverse_proxy {upstream} {{
        transport http {{
            keepalive_idle_conns 512
            keepalive_idle_conns_per_host 512
        }}
    }}
}}
"""

MOST_CONNECTIONS = 12_000


@frozen
class Gateway:
    """Something that answers requests.

    Attributes:
        url: Where the backend is reached through it.
        processes: Gives the pids whose time and memory are its own.
        token: What its callers send.
    """

    name: str
    url: str
    processes: Callable[[], list[int]]
    token: str = TOKEN

    @property
    def headers(self) -> dict[str, str]:
        """The fields that every request has; the same ones, but for the token, for each gateway."""
        return {"Host": "localhost", "Authorization": f"Bearer {self.token}"}

    def checked(self) -> Gateway:
        """See that the backend's own answer comes through.

        Raises:
            BenchmarkFailed: Something else does.
        """
        answer = requests.get(self.url, headers=self.headers, timeout=10)
        if (answer.status_code, answer.text) != (200, BODY):
            raise BenchmarkFailed(f"{self.name} answers {answer.status_code} {answer.text[:200]}")
        return self


@frozen
class Backend:
    """The server behind every gateway: nginx with a constant, on TCP and on a Unix socket."""

    port: int
    socket: Path
    child: Child

    @property
    def target(self) -> str:
        """Its TCP address, as rivals take it."""
        return f"127.0.0.1:{self.port}"

    def direct(self) -> Gateway:
        """Give it as a gateway: none at all."""
        return Gateway("none", f"http://{self.target}/app/hello", list)


def start_backend(children: Children) -> Backend:
    """Start it where the client runs."""
    port, socket = free_port(), children.directory / "backend.sock"
    http = _BACKEND.format(port=port, socket=socket, body=BODY)
    child = _nginx(children, "backend", http, LOAD_CORE)
    until(lambda: listens(port), "the backend listens", child)
    backend = Backend(port, socket, child)
    backend.direct().checked()
    return backend


def start_nginx(children: Children, upstream: str, name: str = "nginx") -> Gateway:
    """Start nginx as a plain proxy, or with `name` ``nginx, duties`` with this server's duties."""
    port = free_port()
    text = _DUTIES if name.startswith("nginx, duties") else _UPSTREAM
    http = text.format(port=port, upstream=upstream, directory=children.directory, token=TOKEN)
    child = _nginx(children, _file_name(name), http, GATEWAY_CORE)
    return _ready(name, port, child)


def start_haproxy(children: Children, upstream: str, name: str = "haproxy") -> Gateway:
    """Start HAProxy; `upstream` is ``host:port`` or ``unix@/path``."""
    port = free_port()
    file = children.directory / f"{_file_name(name)}.cfg"
    file.write_text(_HAPROXY.format(port=port, upstream=upstream, connections=MOST_CONNECTIONS))
    child = children.start(_file_name(name), ["haproxy", "-db", "-f", str(file)], GATEWAY_CORE)
    return _ready(name, port, child)


def start_caddy(children: Children, upstream: str) -> Gateway:
    """Start Caddy."""
    port = free_port()
    file = children.directory / "Caddyfile"
    file.write_text(_CADDY.format(port=port, upstream=upstream))
    environment = {
        **os.environ,
        "GOMAXPROCS": "1",
        "HOME": str(children.directory),
        "XDG_DATA_HOME": str(children.directory),
        "XDG_CONFIG_HOME": str(children.directory),
    }
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)]
    return _ready("caddy", port, children.start("caddy", command, GATEWAY_CORE, environment))


def _nginx(children: Children, name: str, http: str, cores: tuple[int, ...]) -> Child:
    file = children.directory / f"{name}.conf"
    settings = {"directory": children.directory, "name": name, "http": http}
    file.write_text(_NGINX.format(files=20_000, connections=MOST_CONNECTIONS + 1024, **settings))
    return children.start(name, ["nginx", "-e", "stderr", "-c", str(file)], cores)


def _ready(name: str, port: int, child: Child) -> Gateway:
    until(lambda: listens(port), f"{name} listens", child)
    gateway = Gateway(name, f"http://127.0.0.1:{port}/app/hello", child.processes)
    return attrs.evolve(gateway.checked(), processes=_fixed(child.processes()))


def _fixed(pids: list[int]) -> Callable[[], list[int]]:
    return lambda: pids


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)
