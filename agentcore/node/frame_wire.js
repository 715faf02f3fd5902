'use strict';
/**
 * The frame wire: many tasks at once on one connection.
 *
 * Frames enter, tasks go to the executor, frames with their outcomes leave, all of one
 * turn of the loop in one write.  The peer is the server's own gateway: one that breaks
 * the protocol loses its connection, and with it its tasks.
 */

const {
  PREFACE, MAX_PAYLOAD_BYTES, WINDOW_BYTES,
  OPEN, CANCEL, CREDIT, HELLO, RESULT, ERROR, BEGIN, DATA, END, FAIL, GOAWAY,
  ProtocolError, FrameReader, FrameWriter, readOpen, helloPayload, beginPayload,
} = require('./frames');
const { Items, errorBody } = require('./items');
const { Task } = require('./executor');
const { Table } = require('./table');
const { badCommand, failure, isCommandName } = require('./tasks');

// A peer that takes no answers is heard no more until it does.
const UNREAD_BYTES = 1 << 20;

/** What of one streamed answer may go out now, and what waits for credit. */
class Stream {
  constructor(connection, id) {
    this._connection = connection;
    this._id = id;
    this._credit = WINDOW_BYTES;
    this._pieces = [];
    this._isWhole = false;
  }

  /** Sends a piece once there is credit for it, and calls `taken` then. */
  write(piece, taken) {
    this._pieces.push({ bytes: typeof piece === 'string' ? Buffer.from(piece) : piece, taken });
    this._connection.move(this);
  }

  /** Ends it behind all pieces. */
  end() {
    this._isWhole = true;
    this._connection.move(this);
  }

  grant(bytes) {
    this._credit += bytes;
    this._connection.move(this);
  }

  /** Puts into frames what may go; small pieces of one turn share one. */
  pump() {
    while (this._pieces.length && this._credit > 0) {
      const payload = this._next(Math.min(this._credit, MAX_PAYLOAD_BYTES));
      this._credit -= payload.length;
      this._connection.put(DATA, this._id, payload);
    }
    if (this._isWhole && !this._pieces.length) this._connection.finish(END, this._id);
  }

  _next(room) {
    const taken = [];
    let size = 0;
    while (taken.length < this._pieces.length && size < room) {
      const piece = this._pieces[taken.length];
      const part = piece.bytes.slice(0, room - size);
      size += part.length;
      taken.push(part);
      if (part.length < piece.bytes.length) {
        piece.bytes = piece.bytes.slice(part.length);
        this._pieces.splice(0, taken.length - 1);
        return Buffer.concat(taken, size);
      }
      piece.taken();
    }
    this._pieces.splice(0, taken.length);
    return taken.length === 1 ? taken[0] : Buffer.concat(taken, size);
  }
}

/** The outlet of one answer; see `Items`. */
class Outlet {
  constructor(connection, id, task) {
    this._connection = connection;
    this._id = id;
    this._task = task;
    this._stream = undefined;
  }

  result(text) {
    this._connection.result(this._id, text);
  }

  refuse(failed) {
    this._connection.refuse(this._id, failed, this._task.requestId);
  }

  begin(toEvents) {
    this._stream = this._connection.begin(this._id, toEvents);
  }

  write(piece, taken) {
    this._stream.write(piece, taken);
  }

  end() {
    this._stream.end();
  }

  fail() {
    this._connection.finish(FAIL, this._id);
  }
}

class FrameConnection {
  constructor(socket, executor, onClose) {
    this._socket = socket;
    this._executor = executor;
    this._reader = new FrameReader();
    this._writer = new FrameWriter();
    this._open = new Table(); // id -> {task, items, stream}
    this._moving = new Table();
    this._isFlushing = false;
    this._take = this._take.bind(this);
    this._flush = this._flush.bind(this);
    socket.on('data', (chunk) => this._receive(chunk));
    socket.on('drain', () => socket.resume());
    socket.on('error', () => {});
    socket.on('end', () => socket.destroy());
    socket.on('close', () => {
      this._lost();
      onClose(this);
    });
    socket.write(PREFACE);
    this.put(HELLO, 0, helloPayload());
  }

  /** Tells the peer to send no more tasks here. */
  goAway() {
    this.put(GOAWAY, 0);
  }

  /** Sends a frame with whatever else is sent in this turn. */
  put(type, id, payload, status) {
    this._writer.add(type, id, payload, status);
    this._schedule();
  }

  /** Lets a stream send on, at the end of this turn. */
  move(stream) {
    this._moving.add(stream);
    this._schedule();
  }

  /** Sends the last frame of a task. */
  finish(type, id, payload, status) {
    const { stream } = this._open.get(id);
    if (stream) this._moving.delete(stream);
    this._open.delete(id);
    this.put(type, id, payload, status);
  }

  result(id, text) {
    // A string has at most three bytes of UTF-8 per unit: most need no counting.
    if (text.length * 3 <= MAX_PAYLOAD_BYTES) {
      this.finish(RESULT, id, text);
      return;
    }
    const bytes = Buffer.from(text);
    if (bytes.length <= MAX_PAYLOAD_BYTES) {
      this.finish(RESULT, id, bytes);
      return;
    }
    const stream = this.begin(id, false, bytes.length);
    stream.write(bytes, () => {});
    stream.end();
  }

  refuse(id, failed, requestId) {
    let body = Buffer.from(errorBody(failed, requestId));
    if (body.length + 2 > MAX_PAYLOAD_BYTES) {
      const { status, code, message } = failed;
      body = Buffer.from(errorBody(failure(status, code, message.slice(0, 8192)), requestId));
    }
    this.finish(ERROR, id, body, failed.status);
  }

  begin(id, toEvents, length) {
    this.put(BEGIN, id, beginPayload(toEvents, length));
    const entry = this._open.get(id);
    entry.stream = new Stream(this, id);
    return entry.stream;
  }

  _schedule() {
    if (this._isFlushing) return;
    this._isFlushing = true;
    process.nextTick(this._flush);
  }

  _flush() {
    while (this._moving.size) {
      const [stream] = this._moving.keys();
      this._moving.delete(stream);
      stream.pump();
    }
    this._isFlushing = false;
    if (this._socket.destroyed || this._writer.isEmpty) return;
    this._socket.write(this._writer.take());
    if (this._socket.writableLength > UNREAD_BYTES) this._socket.pause();
  }

  _receive(chunk) {
    try {
      this._reader.feed(chunk, this._take);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      console.error(`A connection of the server broke the protocol: ${error.message}`);
      this._socket.destroy();
    }
  }

  _take(type, id, bytes, start, end) {
    if (type === OPEN) this._begin(id, readOpen(bytes, start, end));
    else if (type === CANCEL) this._cancel(id);
    else if (type === CREDIT && end - start === 4) this._grant(id, bytes.readUInt32BE(start));
    else throw new ProtocolError(`a frame of type ${type}`);
  }

  _begin(id, call) {
    if (this._open.has(id)) throw new ProtocolError(`the id ${id} twice`);
    const task = new Task(call, call);
    const entry = { task, items: undefined, stream: undefined };
    this._open.set(id, entry);
    const items = () => {
      entry.items = entry.items || new Items(task, call.toEvents, new Outlet(this, id, task));
      return entry.items;
    };
    task.toEvents = call.toEvents;
    task.item = (text) => items().item(text);
    const done = (text, failed) => {
      if (entry.items || (call.toEvents && !failed)) items().done(text, failed);
      else if (failed) this.refuse(id, failed, task.requestId);
      else if (text === undefined) items().done();
      else this.result(id, text);
    };
    if (!call.isIntact) done(undefined, failure(400, 'BAD_JSON', 'The task is not UTF-8.'));
    else if (!isCommandName(call.command)) done(undefined, badCommand(call.command));
    else this._executor.submit(task, done);
  }

  _cancel(id) {
    const entry = this._open.get(id);
    if (!entry) return; // its last frame is on its way
    if (entry.items) entry.items.close();
    this._executor.cancel(entry.task);
    this.finish(END, id);
  }

  _grant(id, bytes) {
    const entry = this._open.get(id);
    if (entry && entry.stream) entry.stream.grant(bytes);
  }

  _lost() {
    for (const { task, items } of this._open.values()) {
      if (items) items.close();
      this._executor.cancel(task);
    }
    this._open.clear();
    this._moving.clear();
  }
}

class FrameWire {
  constructor(executor) {
    this._executor = executor;
    this._connections = new Set();
  }

  /** Serves a connection whose first bytes were no HTTP. */
  accept(socket) {
    this._connections.add(new FrameConnection(socket, this._executor, (lost) => this._connections.delete(lost)));
  }

  /** Takes no more tasks; those that run go on. */
  stop() {
    this._connections.forEach((connection) => connection.goAway());
  }
}

module.exports = { FrameWire };
