'use strict';
/**
 * The codec of the frame wire (docs/protocols.md, section 7): bytes to frames and back.
 *
 * Does no I/O and knows nothing of tasks.
 */

const { decoded } = require('./tasks');

const PREFACE = Buffer.from('ploinky-frames/1\n');
const HEADER_BYTES = 9;
/** The largest payload of any frame. */
const MAX_PAYLOAD_BYTES = 65536;
/** What may be sent of one answer before the other side gives credit. */
const WINDOW_BYTES = 262144;

const OPEN = 1;
const CANCEL = 2;
const CREDIT = 3;
const HELLO = 16;
const RESULT = 17;
const ERROR = 18;
const BEGIN = 19;
const DATA = 20;
const END = 21;
const FAIL = 22;
const GOAWAY = 23;

const TO_EVENTS = 1;
const NOTHING = Buffer.alloc(0);

/** What the other side sent is no frame that it may send: the connection is of no use any more. */
class ProtocolError extends Error {}

/** Cuts a stream of bytes into frames. */
class FrameReader {
  constructor() {
    this._rest = undefined;
    this._greeted = false;
  }

  /**
   * Takes what was received; calls `take(type, id, bytes, start, end)` for each frame that it
   * completes: its payload is there in `bytes`, which is valid during the call alone.
   *
   * @throws ProtocolError
   */
  feed(chunk, take) {
    let bytes = this._rest ? Buffer.concat([this._rest, chunk]) : chunk;
    let at = 0;
    if (!this._greeted) {
      const known = Math.min(bytes.length, PREFACE.length);
      if (PREFACE.compare(bytes, 0, known, 0, known) !== 0) throw new ProtocolError('no preface');
      if (known < PREFACE.length) {
        this._rest = bytes;
        return;
      }
      this._greeted = true;
      at = known;
    }
    while (bytes.length - at >= HEADER_BYTES) {
      const length = bytes.readUInt32BE(at);
      if (length > MAX_PAYLOAD_BYTES) throw new ProtocolError(`a frame of ${length} bytes`);
      const end = at + HEADER_BYTES + length;
      if (end > bytes.length) break;
      take(bytes[at + 8], bytes.readUInt32BE(at + 4), bytes, at + HEADER_BYTES, end);
      at = end;
    }
    this._rest = at < bytes.length ? bytes.slice(at) : undefined;
  }
}

/** Reads the payload of an OPEN: `{text, command, id, user, requestId, deadline, toEvents}`; `text` is the params'. */
function readOpen(bytes, start, end) {
  if (end - start < 13) throw new ProtocolError('an OPEN that is too short');
  const deadline = bytes.readUInt32BE(start + 1) * 4294967296 + bytes.readUInt32BE(start + 5);
  const text = bytes.toString('utf8', start + 9, end);
  const first = text.indexOf('\n');
  const second = text.indexOf('\n', first + 1);
  const third = text.indexOf('\n', second + 1);
  const fourth = text.indexOf('\n', third + 1);
  if (first < 0 || second < 0 || third < 0 || fourth < 0) throw new ProtocolError('an OPEN without its four lines');
  return {
    text: text.slice(fourth + 1),
    command: text.slice(first + 1, second),
    id: decoded(text.slice(0, first)),
    user: decoded(text.slice(second + 1, third)),
    requestId: decoded(text.slice(third + 1, fourth)),
    deadline,
    toEvents: (bytes[start] & TO_EVENTS) !== 0,
    isIntact: !text.includes('\ufffd') || Buffer.from(text, 'utf8').equals(bytes.slice(start + 9, end)),
  };
}

/** Gathers frames, to be sent in one piece. */
class FrameWriter {
  constructor() {
    this._frames = [];
    this._most = 0;
  }

  get isEmpty() {
    return this._frames.length === 0;
  }

  /** Adds a frame whose payload is `status` (where it is not 0) and then a text or bytes. */
  add(type, id, payload = NOTHING, status = 0) {
    this._frames.push(type, id, payload, status);
    // A string has at most three bytes of UTF-8 per unit.
    this._most += HEADER_BYTES + 2 + (typeof payload === 'string' ? payload.length * 3 : payload.length);
  }

  /** Gives all frames as bytes, and forgets them. */
  take() {
    const frames = this._frames;
    const bytes = Buffer.allocUnsafe(this._most);
    let at = 0;
    for (let i = 0; i < frames.length; i += 4) {
      const payload = frames[i + 2];
      let end = at + HEADER_BYTES;
      if (frames[i + 3]) end = bytes.writeUInt16BE(frames[i + 3], end);
      end += typeof payload === 'string' ? bytes.write(payload, end) : payload.copy(bytes, end);
      bytes.writeUInt32BE(end - at - HEADER_BYTES, at);
      bytes.writeUInt32BE(frames[i + 1], at + 4);
      bytes[at + 8] = frames[i];
      at = end;
    }
    this._frames = [];
    this._most = 0;
    return bytes.slice(0, at);
  }
}

/** Gives the payload of HELLO: what the engine takes. */
function helloPayload() {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(MAX_PAYLOAD_BYTES);
  return payload;
}

/** Gives the payload of BEGIN; a length of 0 is one that is not known. */
function beginPayload(toEvents, length = 0) {
  const payload = Buffer.alloc(9);
  payload[0] = toEvents ? TO_EVENTS : 0;
  payload.writeUInt32BE(Math.floor(length / 4294967296), 1);
  payload.writeUInt32BE(length % 4294967296, 5);
  return payload;
}

module.exports = {
  PREFACE, MAX_PAYLOAD_BYTES, WINDOW_BYTES,
  OPEN, CANCEL, CREDIT, HELLO, RESULT, ERROR, BEGIN, DATA, END, FAIL, GOAWAY,
  ProtocolError, FrameReader, FrameWriter, readOpen, helloPayload, beginPayload,
};
