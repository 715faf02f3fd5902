'use strict';
/**
 * The HTTP wire: `POST /task`, `GET /health`, `GET /commands`.
 *
 * Requests enter, tasks go to the executor, answers leave.  The peer is the
 * server's own gateway on a Unix socket (or a published port), which keeps the
 * connections open: no timeout here may close one that it is about to use.
 */

const http = require('http');
const { Items, errorBody } = require('./items');
const { Task } = require('./executor');
const { decoded, failure, isFailure, readTask } = require('./tasks');

const MAX_BODY_BYTES = 16 * 1024 * 1024;

class HttpWire {
  constructor(executor, catalogue) {
    this._executor = executor;
    this._catalogue = catalogue;
    this._server = http.createServer((request, response) => this._answer(request, response));
    Object.assign(this._server, { keepAliveTimeout: 0, headersTimeout: 0, requestTimeout: 0, timeout: 0 });
  }

  /** Serves a connection. */
  accept(socket) {
    this._server.emit('connection', socket);
  }

  _answer(request, response) {
    const { method, url } = request;
    const end = url.indexOf('?');
    const path = end < 0 ? url : url.slice(0, end);
    if (path === '/task') {
      if (method === 'POST') this._receive(request, response);
      else refuse(response, notAllowed('POST'), { Allow: 'POST' });
    } else if (path === '/health' || path === '/commands') {
      if (method === 'GET') send(response, 200, JSON.stringify(this._report(path)));
      else refuse(response, notAllowed('GET'), { Allow: 'GET' });
    } else {
      refuse(response, failure(404, 'NO_SUCH_ROUTE', 'There are POST /task, GET /health and GET /commands.'));
    }
  }

  _report(path) {
    if (path === '/commands') return this._catalogue.list();
    const { inflight, busy, draining } = this._executor;
    return { status: draining ? 'draining' : busy ? 'busy' : 'ok', inflight };
  }

  _receive(request, response) {
    if (Number(request.headers['content-length']) > MAX_BODY_BYTES) {
      refuse(response, tooLarge(), { Connection: 'close' });
      return;
    }
    let chunks = [];
    let size = 0;
    request.on('data', (chunk) => {
      size += chunk.length;
      if (size <= MAX_BODY_BYTES) chunks.push(chunk);
      else if (chunks) {
        chunks = undefined;
        refuse(response, tooLarge(), { Connection: 'close' });
      }
    });
    request.on('end', () => {
      if (chunks) this._run(request, response, chunks.length === 1 ? chunks[0] : Buffer.concat(chunks, size));
    });
  }

  _run({ headers }, response, body) {
    const requestId = headers['x-request-id'];
    let call;
    try {
      call = readTask(body);
    } catch (error) {
      if (!isFailure(error)) throw error;
      refuse(response, error, undefined, requestId);
      return;
    }
    const deadline = headers['x-ploinky-deadline'];
    const task = new Task(call, {
      id: headers['x-ploinky-task'],
      user: decoded(headers['x-ploinky-user']),
      requestId,
      deadline: /^\d{1,15}$/.test(deadline) ? Number(deadline) : undefined,
    });
    const outlet = new Outlet(response, task);
    const items = new Items(task, /\btext\/event-stream\b/i.test(headers.accept), outlet);
    task.toEvents = items.toEvents;
    task.item = (text) => items.item(text);
    response.on('close', () => {
      items.close();
      this._executor.cancel(task);
    });
    this._executor.submit(task, (text, failed) => items.done(text, failed));
  }
}

/** The outlet of one answer; see `Items`. */
class Outlet {
  constructor(response, task) {
    this._response = response;
    this._task = task;
    this._headers = { 'X-Ploinky-Command': task.command };
    this._waiting = undefined;
  }

  result(text) {
    send(this._response, 200, text, this._headers);
  }

  refuse(failed) {
    refuse(this._response, failed, this._headers, this._task.requestId);
  }

  begin(toEvents) {
    this._response.sendDate = false;
    this._response.writeHead(200, {
      'Content-Type': toEvents ? 'text/event-stream' : 'application/json',
      ...(toEvents ? { 'Cache-Control': 'no-store' } : undefined),
      ...this._headers,
    });
  }

  write(piece, taken) {
    if (this._response.write(piece) && !this._waiting) {
      taken();
      return;
    }
    if (!this._waiting) {
      this._waiting = [];
      this._response.once('drain', () => {
        const waiting = this._waiting;
        this._waiting = undefined;
        waiting.forEach((each) => each());
      });
    }
    this._waiting.push(taken);
  }

  end() {
    this._response.end();
  }

  /** Cuts the answer off, so that nobody takes half of it for all. */
  fail() {
    this._response.destroy();
  }
}

const notAllowed = (allow) => failure(405, 'METHOD_NOT_ALLOWED', `Use ${allow}.`);
const tooLarge = () => failure(413, 'BODY_TOO_LARGE', `A task has at most ${MAX_BODY_BYTES} bytes.`);

function send(response, status, text, headers) {
  response.sendDate = false;
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
    ...headers,
  });
  response.end(text);
}

/** Answers that the call itself failed; `X-Ploinky-Error` tells it from a result. */
function refuse(response, failed, headers, requestId) {
  const retry = failed.status === 503 ? { 'Retry-After': '1' } : undefined;
  send(response, failed.status, errorBody(failed, requestId), { 'X-Ploinky-Error': '1', ...retry, ...headers });
}

module.exports = { HttpWire };
