'use strict';
/**
 * Where connections come in: tells frames from HTTP by their first bytes.
 *
 * No HTTP method begins like the preface of frames, not even in its first byte.
 */

const net = require('net');
const { PREFACE } = require('./frames');

class Listener {
  /** @param {{http, frames}} wires Each takes a socket by `accept`. */
  constructor({ http, frames }) {
    this._http = http;
    this._frames = frames;
    this._servers = [];
  }

  /** Listens on what `net.Server.listen` takes: `{path}` or `{host, port}`. */
  listen(where) {
    // The other side may close its half and still read, as HTTP allows.
    const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this._accept(socket));
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(where, () => {
        this._servers.push(server);
        resolve();
      });
    });
  }

  /** Takes no more connections. */
  stop() {
    this._servers.forEach((server) => server.close());
  }

  _accept(socket) {
    const ignore = () => {};
    const close = () => socket.destroy();
    socket.once('error', ignore);
    socket.once('end', close);
    socket.once('data', (chunk) => {
      socket.removeListener('error', ignore);
      socket.removeListener('end', close);
      socket.pause();
      socket.unshift(chunk);
      const seen = Math.min(chunk.length, PREFACE.length);
      const isFrames = PREFACE.compare(chunk, 0, seen, 0, seen) === 0;
      (isFrames ? this._frames : this._http).accept(socket);
      process.nextTick(() => socket.resume());
    });
  }
}

module.exports = { Listener };
