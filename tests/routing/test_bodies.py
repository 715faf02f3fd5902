"""Where a body ends: the same wherever the reads fall, and never other than llhttp says."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ploinky.routing.bodies import BadFraming, Body, ChunkedBody, LengthBody, UntilCloseBody

WHOLE = b"4\r\nWiki\r\n6;a=b\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nTrailer: x\r\n\r\n"
TEXT = b"Wikipedia in \r\n\r\nchunks."

BAD = [
    (b"4\nWiki\r\n0\r\n\r\n", "a bare line feed after the size"),
    (b"4\r\nWiki\n0\r\n\r\n", "a bare line feed after the chunk"),
    (b"4\r\nWiki\r0\r\n\r\n", "a bare carriage return after the chunk"),
    (b"4\r\nWikis\r\n0\r\n\r\n", "a chunk longer than its size"),
    (b"4\r\nWikis0\r\n\r\n", "a chunk longer than its size, without an end"),
    (b"x\r\nWiki\r\n0\r\n\r\n", "a size that is no number"),
    (b"-4\r\nWiki\r\n0\r\n\r\n", "a negative size"),
    (b"+4\r\nWiki\r\n0\r\n\r\n", "a signed size"),
    (b"0x4\r\nWiki\r\n0\r\n\r\n", "a size with a prefix"),
    (b"4_0\r\nWiki\r\n0\r\n\r\n", "a size that only Python reads"),
    (b" 4\r\nWiki\r\n0\r\n\r\n", "a space before the size"),
    (b"4 \r\nWiki\r\n0\r\n\r\n", "a space after the size"),
    (b"\r\n4\r\nWiki\r\n0\r\n\r\n", "an empty line before the size"),
    (b"11111111111111111\r\n", "a size beyond 64 bits"),
    (b"4;" + b"a" * 2000 + b"\r\nWiki\r\n0\r\n\r\n", "an extension without end"),
    (b"4;a\rb\r\nWiki\r\n0\r\n\r\n", "a carriage return in an extension"),
    (b"4;a\x00\r\nWiki\r\n0\r\n\r\n", "a NUL in an extension"),
    (b"0\r\nno field\r\n\r\n", "a trailer that is no field"),
    (b"0\r\n folded: x\r\n\r\n", "a folded trailer"),
    (b"0\r\nA: \x01\r\n\r\n", "a control character in a trailer"),
    (b"0\r\n\n", "a bare line feed at the end"),
    (b"0\r\n" + b"A: x\r\n" * 2000, "trailers without end"),
]


def fed(body: Body, *pieces: bytes) -> tuple[bytes, bytes | None]:
    """Feed all pieces; give the body, and what came after it or None."""
    read = b""
    for number, piece in enumerate(pieces):
        chunk, after = body.feed(piece)
        read += chunk
        if after is not None:
            return read, after + b"".join(pieces[number + 1 :])
    return read, None


def by_llhttp(data: bytes) -> tuple[bytes, bool] | None:
    """Say what llhttp makes of it: body and whether it ended; None where it refuses."""

    class Events:
        body = b""
        ended = False

        def on_body(self, part: bytes) -> None:
            self.body += part

        def on_message_complete(self) -> None:
            self.ended = True

    events = Events()
    parser = httptools.HttpRequestParser(events)
    parser.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    try:
        for at in range(len(data)):
            parser.feed_data(data[at : at + 1])
            if events.ended:
                break
    except httptools.HttpParserError:
        return None
    return events.body, events.ended


@pytest.mark.parametrize("cut", range(len(WHOLE) + 1))
def test_chunks_are_read_alike_wherever_reads_are_cut(cut: int) -> None:
    """Body and remainder are the same, cut at any byte."""
    assert fed(ChunkedBody(), WHOLE[:cut], WHOLE[cut:] + b"GET /") == (TEXT, b"GET /")


def test_chunks_come_byte_by_byte() -> None:
    """The slowest client is understood."""
    pieces = [WHOLE[at : at + 1] for at in range(len(WHOLE))]
    assert fed(ChunkedBody(), *pieces) == (TEXT, b"")


@pytest.mark.parametrize(("data", "why"), BAD, ids=[why for _, why in BAD])
def test_what_can_be_read_in_two_ways_is_refused(data: bytes, why: str) -> None:
    """Whole or byte by byte, there is no end of a body to be found in it."""
    with pytest.raises(BadFraming):
        fed(ChunkedBody(), data)
    with pytest.raises(BadFraming):
        fed(ChunkedBody(), *(data[at : at + 1] for at in range(len(data))))


_PIECES = st.sampled_from(
    [b"0", b"1", b"4", b"a", b"F", b"Wiki", b"\r\n", b"\r", b"\n", b";x", b" ", b"A: b", b"\x00"]
)


@given(st.lists(_PIECES, max_size=14).map(b"".join))
@example(WHOLE)
@example(b"1\r\nx\r\n0\r\n\r\n")
def test_it_is_never_laxer_than_llhttp(data: bytes) -> None:
    """Where it finds an end llhttp finds the same one, and none where it does not."""
    try:
        body, after = fed(ChunkedBody(), data)
    except BadFraming:
        return
    theirs = by_llhttp(data)
    if after is None:
        assert theirs is None or not theirs[1]
    else:
        assert theirs == (body, True)


@given(st.binary(max_size=64), st.binary(max_size=8), st.integers(0, 72))
def test_a_length_is_counted(body: bytes, after: bytes, cut: int) -> None:
    """So many bytes and no more, wherever the cut."""
    data = body + after
    read = fed(LengthBody(len(body)), data[:cut], data[cut:])
    assert read == (body, after)


def test_a_body_until_the_end_of_its_connection_goes_on() -> None:
    """It never says that it ended."""
    assert fed(UntilCloseBody(), b"a", b"b") == (b"ab", None)
