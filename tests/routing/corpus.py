"""Requests and answers by which gateways were fooled, and what becomes of each here.

Two tables.  `REQUESTS` gives for each name the client's bytes, and either the status with which
they are refused or all that the agent sees.  `ANSWERS` gives for each name an agent's bytes,
and either None, where they are no answer, or the body that the client reads.
"""

from __future__ import annotations

from attrs import frozen

SMUGGLED = b"GET /shop/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
"""What must never reach an agent where it follows what was refused."""

_ORIGIN = (
    b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n"
    b"X-Forwarded-Host: %b\r\nX-Forwarded-Prefix: /shop\r\nX-Ploinky-User: InternetUser\r\n"
)


@frozen
class Seen:
    """One request as an agent sees it.

    Attributes:
        line: Its request line.
        fields: What stands between that and the fields that the gateway sets.
        framing: The field that frames the body, or ``b""``.
    """

    line: bytes = b"GET /x HTTP/1.1"
    fields: tuple[bytes, ...] = (b"Host: localhost",)
    framing: bytes = b""
    body: bytes = b""
    host: bytes = b"localhost"

    def raw(self, request_id: bytes) -> bytes:
        """All of its bytes."""
        lines = b"".join(line + b"\r\n" for line in (self.line, *self.fields))
        framing = self.framing + b"\r\n" if self.framing else b""
        head = lines + _ORIGIN % self.host + framing + b"X-Request-Id: %b\r\n\r\n" % request_id
        return head + self.body


Expected = int | tuple[Seen, ...]

LENGTH_4 = Seen(b"POST /x HTTP/1.1", framing=b"Content-Length: 4", body=b"body")
CHUNKED = Seen(b"POST /x HTTP/1.1", framing=b"Transfer-Encoding: chunked")
PLAIN = (Seen(),)


def _in_chunks(*chunks: bytes) -> tuple[Seen, ...]:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    return (Seen(CHUNKED.line, framing=CHUNKED.framing, body=body),)


def get(
    *fields: bytes, line: bytes = b"GET /shop/x HTTP/1.1", host: bytes | None = b"localhost"
) -> bytes:
    lines = [line, *([b"Host: " + host] if host is not None else []), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def post(*fields: bytes, body: bytes = b"body") -> bytes:
    return get(*fields, line=b"POST /shop/x HTTP/1.1") + body


TE = b"Transfer-Encoding: "
CL = b"Content-Length: "
CHUNKS = b"4\r\nbody\r\n0\r\n\r\n"


def _framing() -> dict[str, tuple[bytes, Expected]]:
    odd_lengths = [
        b"+4",
        b"-4",
        b"0x4",
        b"4,4",
        b"4, 4",
        b"4 4",
        b"4a",
        b"4.0",
        b"1e0",
        b"",
        b"\x0b4",
        b"\x004",
        b"18446744073709551616",
        b"99999999999999999999999",
        b"\xb2",
        b"4;",
        b"'4'",
        b"4\t4",
        b"_4",
    ]
    odd_codings = [
        b"chunked, chunked", b"chunked,chunked", b"identity", b"identity, chunked",
        b"chunked, identity", b"gzip, chunked", b"chunked,", b",chunked", b"xchunked", b"chunkedx",
        b"chunked;q=1", b'"chunked"', b"\x0bchunked", b"\x0cchunked", b"chunked\x0b", b"chun\x00ked",
        b"", b"chunk", b"cow", b"gzip", b"chunked\x1f", b"\xc2\xa0chunked", b"trailers, chunked", b"chunked\t",
    ]  # fmt: skip
    table: dict[str, tuple[bytes, Expected]] = {
        "CL.TE": (post(CL + b"6", TE + b"chunked", body=b"0\r\n\r\nX"), 400),
        "TE.CL": (post(TE + b"chunked", CL + b"4", body=b"0\r\n\r\n"), 400),
        "CL.TE with the same meaning": (post(CL + b"14", TE + b"chunked", body=CHUNKS), 400),
        "TE.TE": (post(TE + b"chunked", TE + b"chunked", body=CHUNKS), 400),
        "TE.TE, the second odd": (post(TE + b"chunked", TE + b"cow", body=CHUNKS), 400),
        "TE.TE, the first odd": (post(TE + b"identity", TE + b"chunked", body=CHUNKS), 400),
        "CL and an odd TE": (post(CL + b"4", TE + b"xchunked"), 400),
        "CL and a broken name of TE": (post(CL + b"4", b"Transfer-Encoding : chunked"), 400),
        "CL and TE_ with an underscore": (
            post(CL + b"4", b"Transfer_Encoding: chunked"),
            (Seen(LENGTH_4.line, (b"Host: localhost", b"Transfer_Encoding: chunked"), LENGTH_4.framing, b"body"),),
        ),
        "CL, and TE in a folded line": (post(CL + b"4", b"X: y\r\n Transfer-Encoding: chunked"), 400),
        "CL, and TE after a bare LF": (post(CL + b"4", b"X: y\nTransfer-Encoding: chunked"), 400),
        "CL, and TE after a bare CR": (post(CL + b"4", b"X: y\rTransfer-Encoding: chunked"), 400),
        "two lengths": (post(CL + b"4", CL + b"5"), 400),
        "the same length twice": (post(CL + b"4", CL + b"4"), 400),
        "a length with space around": (post(b"Content-Length:  4 "), (LENGTH_4,)),
        "a length with leading zeros": (post(CL + b"0004"), (LENGTH_4,)),
        "TE in HTTP/1.0": (
            get(TE + b"chunked", line=b"POST /shop/x HTTP/1.0") + CHUNKS, 400,
        ),
        "chunked in another case": (post(b"tRANSFER-eNCODING: cHuNkEd", body=CHUNKS), _in_chunks(b"body")),
        "chunked with space before": (post(b"Transfer-Encoding:\t chunked", body=CHUNKS), _in_chunks(b"body")),
        "a length that Connection names": (
            post(CL + b"4", b"Connection: content-length"), (LENGTH_4,),
        ),
        "chunked that Connection names": (
            post(TE + b"chunked", b"Connection: transfer-encoding", body=CHUNKS), _in_chunks(b"body"),
        ),
        "Host that Connection names": (get(b"Connection: host"), PLAIN),
        "a body of GET": (
            get(CL + b"4") + b"body",
            (Seen(framing=b"Content-Length: 4", body=b"body"),),
        ),
        "a request as a body": (
            post(CL + b"%d" % len(SMUGGLED), body=SMUGGLED),
            (Seen(LENGTH_4.line, framing=b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED),),
        ),
        "a length of nothing": (
            post(CL + b"0", body=b""), (Seen(LENGTH_4.line, framing=b"Content-Length: 0"),),
        ),
        "two requests": (get() + post(CL + b"4"), (Seen(), LENGTH_4)),
        "an empty line between": (post(CL + b"4") + b"\r\n" + get(), (LENGTH_4, Seen())),
        "Expect of another kind": (post(CL + b"4", b"Expect: 200-ok"), 417),
        "Expect twice": (post(CL + b"4", b"Expect: 100-continue", b"Expect: 100-continue"), 400),
        "a request behind a field's NUL": (get(b"X: a\0b"), 400),
    }  # fmt: skip
    for value in odd_lengths:
        table[f"the length {value!r}"] = (post(CL + value), 400)
    for value in odd_codings:
        table[f"the coding {value!r}"] = (post(TE + value, body=CHUNKS), 400)
    return table


def _chunks() -> dict[str, tuple[bytes, Expected]]:
    broken = {
        "a size over 64 bits": b"10000000000000004\r\nbody\r\n0\r\n\r\n",
        "a size of 17 digits": b"00000000000000004\r\nbody\r\n0\r\n\r\n",
        "a negative size": b"-4\r\nbody\r\n0\r\n\r\n",
        "a size with a sign": b"+4\r\nbody\r\n0\r\n\r\n",
        "a size with 0x": b"0x4\r\nbody\r\n0\r\n\r\n",
        "a size with an underscore": b"0_4\r\nbody\r\n0\r\n\r\n",
        "no size": b"\r\nbody\r\n0\r\n\r\n",
        "space before a size": b" 4\r\nbody\r\n0\r\n\r\n",
        "space after a size": b"4 \r\nbody\r\n0\r\n\r\n",
        "a size that is a word": b"four\r\nbody\r\n0\r\n\r\n",
        "an extension with LF": b"4;a\nb\r\nbody\r\n0\r\n\r\n",
        "an extension with CR": b"4;a\rb\r\nbody\r\n0\r\n\r\n",
        "an extension with NUL": b"4;a\0b\r\nbody\r\n0\r\n\r\n",
        "an extension of a kilobyte": b"4;" + b"a" * 1100 + b"\r\nbody\r\n0\r\n\r\n",
        "a bare LF after a size": b"4\nbody\r\n0\r\n\r\n",
        "a bare LF after a chunk": b"4\r\nbody\n0\r\n\r\n",
        "a bare CR after a chunk": b"4\r\nbody\r0\r\n\r\n",
        "no line end after a chunk": b"4\r\nbody0\r\n\r\n",
        "a chunk longer than its size": b"3\r\nbody\r\n0\r\n\r\n",
        "a bare LF after the last": b"4\r\nbody\r\n0\n\r\n",
        "a bare LF at the very end": b"4\r\nbody\r\n0\r\n\n",
        "something else after the last": b"4\r\nbody\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
        "a trailer with space before its colon": b"4\r\nbody\r\n0\r\nA : b\r\n\r\n",
        "a folded trailer": b"4\r\nbody\r\n0\r\nA: b\r\n c\r\n\r\n",
        "a trailer with NUL": b"4\r\nbody\r\n0\r\nA: \0\r\n\r\n",
        "a trailer with a bare LF": b"4\r\nbody\r\n0\r\nA: b\nC: d\r\n\r\n",
        "a trailer that is a length": b"4\r\nbody\r\n0\r\nContent-Length: 50\r\n\r\n",
        "a trailer that is a coding": b"4\r\nbody\r\n0\r\ntransfer-encoding: chunked\r\n\r\n",
        "an extension without a name": b"4;\r\nbody\r\n0\r\n\r\n",
        "an extension whose quote stays open": b'4;a="b\r\nbody\r\n0\r\n\r\n',
        "trailers of 9 KiB": b"4\r\nbody\r\n0\r\n" + b"A: %b\r\n" % (b"b" * 900) * 10 + b"\r\n",
    }
    fine = {
        "a trailer that routes": b"4\r\nbody\r\n0\r\nHost: other\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n",
        "extensions": b'4;a=b;c="d\\";\t"\r\nbody\r\n0;e\r\n\r\n',
        "leading zeros": b"0004\r\nbody\r\n000\r\n\r\n",
        "a size in upper case": b"00000000000000A\r\n0123456789\r\n0\r\n\r\n",
    }
    table: dict[str, tuple[bytes, Expected]] = {}
    for name, body in broken.items():
        table[f"chunks: {name}"] = (post(TE + b"chunked", body=body), 400)
    for name, body in fine.items():
        data = b"0123456789" if b"0123456789" in body else b"body"
        table[f"chunks: {name}"] = (post(TE + b"chunked", body=body), _in_chunks(data))
    return table


def _targets() -> dict[str, tuple[bytes, Expected]]:
    refused = [
        b"/shop/../management", b"/shop/./x", b"/..", b"/shop/..", b"/shop/%2e%2e/management",
        b"/shop/%2E./x", b"/shop/.%2e/x", b"/shop/..%2fmanagement", b"/shop%2f..%2fmanagement",
        b"/shop/..\\management", b"/shop\\..\\management", b"/shop/..%5cmanagement", b"/shop/%5c..%5cx",
        b"/shop/..;/management", b"/shop/..%3bx/y", b"/shop/%2e%2e%3b/x", b"/shop/x#fragment",
        b"http://other/shop/x", b"http://localhost@other/shop/x", b"http://other@localhost/shop/x",
        b"http://localhost:81/shop/x", b"http:///shop/x", b"ftp://localhost/shop/x", b"localhost:80",
        b"localhost", b"*", b"shop/x", b"\\shop\\x", b"?x=/shop", b"http:/shop/x", b"/shop/\x80",
        b"/shop/\xc3\xa9", b"/shop/\xff", b"/shop/\x7f", b"/shop/\x01", b"/shop/\0", b"/shop/\t", b"",
        b"/shop/\x0b",
    ]  # fmt: skip
    passed = {
        b"/shop/x": b"/x", b"/shop": b"/", b"/shop/": b"/", b"/shop/x?": b"/x?", b"/shop/x?a=/../b": b"/x?a=/../b",
        b"/shop/...": b"/...", b"/shop/.a/..b": b"/.a/..b", b"/shop//x": b"//x", b"/shop/%00": b"/%00",
        b"/shop/%0d%0aX:y": b"/%0d%0aX:y", b"/shop/%c0%ae%c0%ae/": b"/%c0%ae%c0%ae/", b"/shop/%252e%252e/": b"/%252e%252e/",
        b"http://localhost/shop/x": b"/x", b"HTTP://LOCALHOST/shop/x": b"/x", b"https://localhost/shop/x?y": b"/x?y",
        b"/shop/a;b=c": b"/a;b=c", b"/shop/\\x": b"/\\x", b'/shop/"<>^`{|}': b'/"<>^`{|}',
    }  # fmt: skip
    table: dict[str, tuple[bytes, Expected]] = {}
    for target in refused:
        table[f"the target {target!r}"] = (get(line=b"GET %b HTTP/1.1" % target), 400)
    for target, seen in passed.items():
        raw = get(line=b"GET %b HTTP/1.1" % target)
        table[f"the target {target!r}"] = (raw, (Seen(b"GET %b HTTP/1.1" % seen),))
    table["CONNECT"] = (get(line=b"CONNECT localhost:80 HTTP/1.1"), 400)
    table["CONNECT with a path"] = (get(line=b"CONNECT /shop/x HTTP/1.1"), 400)
    table["OPTIONS *"] = (get(line=b"OPTIONS * HTTP/1.1"), 400)
    table["a prefix that is no segment"] = (get(line=b"GET /shopping HTTP/1.1"), 404)
    table["an encoded prefix"] = (get(line=b"GET /%73hop/x HTTP/1.1"), 404)
    return table


def _hosts() -> dict[str, tuple[bytes, Expected]]:
    odd = [
        b"", b"local host", b"localhost/x", b"localhost,other", b"user@localhost", b"localhost:80:80",
        b"localhost:123456", b"localhost:-1", b"localhost:x", b"http://localhost", b"[::1", b"::1",
        b"localhost\\", b"localhost?x", b"localhost#x", b"%6cocalhost", b"localhost\0", b"lo\tcalhost",
        b"\xc3\xa9", b"a" * 300, b".localhost", b"[::1]x", b"localhost:80 ,other", b"local\x0bhost",
    ]  # fmt: skip
    table: dict[str, tuple[bytes, Expected]] = {
        f"Host: {host[:20]!r}": (get(host=host), 400) for host in odd
    }
    table |= {
        "two Hosts": (get(b"Host: other"), 400),
        "two equal Hosts": (get(b"Host: localhost"), 400),
        "two Hosts, one in another case": (get(b"hOST: localhost"), 400),
        "no Host": (get(host=None), 400),
        "Host with space before its colon": (get(b"Host : localhost", host=None), 400),
        "Host in a folded line": (get(b"X: y\r\n\tHost: other"), 400),
        "another host": (get(host=b"other"), 404),
        "the target's host instead": (
            get(line=b"GET http://localhost/shop/x HTTP/1.1", host=b"other"), 400,
        ),
        "Host with a port": (
            get(host=b"localhost:8000"),
            (Seen(fields=(b"Host: localhost:8000",), host=b"localhost:8000"),),
        ),
        "Host in capitals": (
            get(host=b"LOCALHOST."), (Seen(fields=(b"Host: LOCALHOST.",), host=b"LOCALHOST."),),
        ),
        "HTTP/1.0 without Host": (get(line=b"GET /shop/x HTTP/1.0", host=None), 404),
    }  # fmt: skip
    return table


def _lines() -> dict[str, tuple[bytes, Expected]]:
    table: dict[str, tuple[bytes, Expected]] = {
        "HTTP/0.9": (b"GET /shop/x\r\n\r\n", 400),
        "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        "HTTP/2.0": (get(line=b"GET /shop/x HTTP/2.0"), 400),
        "HTTP/1.2": (get(line=b"GET /shop/x HTTP/1.2"), 400),
        "HTTP/1.10": (get(line=b"GET /shop/x HTTP/1.10"), 400),
        "HTTP/01.1": (get(line=b"GET /shop/x HTTP/01.1"), 400),
        "http/1.1": (get(line=b"GET /shop/x http/1.1"), 400),
        "HTTP/1,1": (get(line=b"GET /shop/x HTTP/1,1"), 400),
        "no version": (get(line=b"GET /shop/x"), 400),
        "RTSP": (get(line=b"GET /shop/x RTSP/1.0"), 400),
        "a method in lower case": (get(line=b"get /shop/x HTTP/1.1"), 400),
        "a method that nobody knows": (get(line=b"GIMME /shop/x HTTP/1.1"), 400),
        "a method of a kilobyte": (get(line=b"G" * 1024 + b" /shop/x HTTP/1.1"), 400),
        "two spaces": (get(line=b"GET  /shop/x HTTP/1.1"), 400),
        "a tab": (get(line=b"GET\t/shop/x HTTP/1.1"), 400),
        "a space at the end of the line": (get(line=b"GET /shop/x HTTP/1.1 "), 400),
        "a space in the target": (get(line=b"GET /shop/x y HTTP/1.1"), 400),
        "a space before the method": (get(line=b" GET /shop/x HTTP/1.1"), 400),
        "a CR at the end of the line": (get(line=b"GET /shop/x HTTP/1.1\r"), 400),
        "two empty lines before": (b"\r\n\r\n" + get(), 400),
        "an empty line before": (b"\r\n" + get(), PLAIN),
        "LF before": (b"\n" + get(), 400),
        "bare LFs": (get().replace(b"\r\n", b"\n"), 400),
        "a bare LF before the empty line": (get()[:-4] + b"\n\r\n", 400),
        "a bare LF as the empty line": (get(b"X: y")[:-2] + b"\n" + b"\r\n", 400),
        "bare CRs": (get().replace(b"\r\n", b"\r"), 400),
        "a bare CR in a value": (get(b"X: a\rb"), 400),
        "a bare LF in a value": (get(b"X: a\nb"), 400),
        "NUL in a name": (get(b"X\0: y"), 400),
        "obs-fold": (get(b"X: a\r\n b"), 400),
        "obs-fold with a tab": (get(b"X: a\r\n\tb"), 400),
        "a folded first field": (b"GET /shop/x HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
        "space before a colon": (get(b"X : y"), 400),
        "tab before a colon": (get(b"X\t: y"), 400),
        "no colon": (get(b"X"), 400),
        "no name": (get(b": y"), 400),
        "a space in a name": (get(b"X Y: z"), 400),
        "a name that is not ASCII": (get(b"X\xc3\xa9: y"), 400),
        "a quote in a name": (get(b'X"Y": z'), 400),
        "101 fields": (get(*[b"X: y"] * 100), 431),
        "100 fields": (
            get(*[b"X: y"] * 99), (Seen(fields=(b"Host: localhost", *[b"X: y"] * 99)),),
        ),
        "a head over 64 KiB": (get(b"X: " + b"y" * 66_000), 431),
        "a target over 8 KiB": (get(line=b"GET /shop/%b HTTP/1.1" % (b"x" * 8192)), 414),
        "an empty value": (get(b"X:"), (Seen(fields=(b"Host: localhost", b"X: ")),)),
        "a value that is not ASCII": (
            get(b"X: \xc3\xa9"), (Seen(fields=(b"Host: localhost", b"X: \xc3\xa9")),),
        ),
        "forged fields": (
            get(b"X-Forwarded-For: 1.1.1.1", b"X_Forwarded_For: 1.1.1.1", b"X-Ploinky-User: Admin",
                b"X_Ploinky_User: Admin", b"Forwarded: for=1.1.1.1", b"X-Real-IP: 1.1.1.1"), PLAIN,
        ),
        "hop-by-hop fields": (
            get(b"TE: trailers", b"Keep-Alive: 5", b"Proxy-Authorization: x", b"Proxy-Connection: x",
                b"Trailer: x", b"Connection: x-own, keep-alive", b"X-Own: 1"), PLAIN,
        ),
    }  # fmt: skip
    for byte in (0x01, 0x08, 0x0B, 0x0C, 0x1B, 0x1F, 0x7F):
        table[f"{byte:#04x} in a value"] = (get(b"X: a%cb" % byte), 400)
    return table


REQUESTS: dict[str, tuple[bytes, Expected]] = {
    **_framing(), **_chunks(), **_targets(), **_hosts(), **_lines(),
}  # fmt: skip

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answer(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK", body: bytes = b"ok") -> bytes:
    return b"\r\n".join([line, *fields]) + b"\r\n\r\n" + body


ANSWERS: dict[str, tuple[bytes, bytes | None]] = {
    "plain": (OK, b"ok"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", None),
    "HTTP/2": (answer(CL + b"2", line=b"HTTP/2 200 OK"), None),
    "HTTP/0.9": (b"<html></html>\r\n\r\n", None),
    "HTTP/1.2": (answer(CL + b"2", line=b"HTTP/1.2 200 OK"), None),
    "no status": (answer(CL + b"2", line=b"HTTP/1.1"), None),
    "a status of two digits": (answer(CL + b"2", line=b"HTTP/1.1 20 OK"), None),
    "a status of four digits": (answer(CL + b"2", line=b"HTTP/1.1 2000 OK"), None),
    "a status with a sign": (answer(CL + b"2", line=b"HTTP/1.1 +20 OK"), None),
    "a status over 599": (answer(CL + b"2", line=b"HTTP/1.1 600 OK"), None),
    "a status below 100": (answer(CL + b"2", line=b"HTTP/1.1 099 OK"), None),
    "a status that is a word": (answer(CL + b"2", line=b"HTTP/1.1 OK 200"), None),
    "two spaces": (answer(CL + b"2", line=b"HTTP/1.1  200 OK"), None),
    "a bare CR in the reason": (answer(CL + b"2", line=b"HTTP/1.1 200 O\rK"), None),
    "NUL in the reason": (answer(CL + b"2", line=b"HTTP/1.1 200 O\0K"), None),
    "no reason": (answer(CL + b"2", line=b"HTTP/1.1 200 "), b"ok"),
    "101 unasked": (answer(b"Connection: upgrade", b"Upgrade: x", line=b"HTTP/1.1 101 X"), None),
    "two lengths": (answer(CL + b"2", CL + b"3"), None),
    "the same length twice": (answer(CL + b"2", CL + b"2"), None),
    "a length and chunks": (answer(CL + b"2", TE + b"chunked", body=b"2\r\nok\r\n0\r\n\r\n"), None),
    "chunks and a length": (answer(TE + b"chunked", CL + b"2", body=b"2\r\nok\r\n0\r\n\r\n"), None),
    "a list of lengths": (answer(CL + b"2, 2"), None),
    "a length with a sign": (answer(CL + b"+2"), None),
    "a negative length": (answer(CL + b"-2"), None),
    "a length over 64 bits": (answer(CL + b"18446744073709551618"), None),
    "an empty length": (answer(CL), None),
    "chunked twice": (answer(TE + b"chunked", TE + b"chunked", body=b"2\r\nok\r\n0\r\n\r\n"), None),
    "chunked in a list twice": (answer(TE + b"chunked, chunked", body=b"2\r\nok\r\n0\r\n\r\n"), None),
    "gzip, chunked": (answer(TE + b"gzip, chunked", body=b"2\r\nok\r\n0\r\n\r\n"), None),
    "gzip": (answer(TE + b"gzip"), None),
    "identity": (answer(TE + b"identity"), None),
    "chunks in HTTP/1.0": (
        answer(TE + b"chunked", line=b"HTTP/1.0 200 OK", body=b"2\r\nok\r\n0\r\n\r\n"), None,
    ),
    "a split answer": (answer(b"X: a\nSet-Cookie: b", CL + b"2"), None),
    "a split answer by CR": (answer(b"X: a\rSet-Cookie: b", CL + b"2"), None),
    "NUL in a value": (answer(b"X: a\0b", CL + b"2"), None),
    "a control character": (answer(b"X: a\x01b", CL + b"2"), None),
    "a folded field": (answer(b"X: a\r\n b", CL + b"2"), None),
    "space before a colon": (answer(b"Content-Length : 2"), None),
    "no colon": (answer(b"X", CL + b"2"), None),
    "bare LFs": (OK.replace(b"\r\n", b"\n"), None),
    "a broken chunk": (answer(TE + b"chunked", body=b"3\r\nok\r\n0\r\n\r\n"), None),
    "a chunk size with 0x": (answer(TE + b"chunked", body=b"0x2\r\nok\r\n0\r\n\r\n"), None),
    "101 fields": (answer(CL + b"2", *[b"X: y"] * 100), None),
    "a head over 64 KiB": (answer(CL + b"2", b"X: " + b"y" * 66_000), None),
    "16 interim answers": (b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n" * 16 + OK, b"ok"),
    "17 interim answers": (b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n" * 17 + OK, None),
    "an interim answer that is none": (b"HTTP/1.1 100 Continue\r\nX\r\n\r\n" + OK, None),
    "two answers": (OK + OK, b"ok"),
    "a request behind it": (OK + SMUGGLED, b"ok"),
    "204 with a body": (answer(line=b"HTTP/1.1 204 No Content", body=b"smuggled"), b""),
    "304 with a length": (answer(CL + b"8", line=b"HTTP/1.1 304 Not Modified", body=b"smuggled"), b""),
}  # fmt: skip
