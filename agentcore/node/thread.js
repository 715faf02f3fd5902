'use strict';
/**
 * The worker thread that runs in-process handlers, seen from the I/O loop.
 *
 * Handlers live apart so that one that blocks, throws out of turn or exits does
 * not take the agent down.  There is one thread, as what a handler keeps in
 * memory is kept once; when it ends, a new one takes its place.  The two talk by a
 * channel of their own: `parentPort` is within handlers' reach.
 *
 * Messages are batched: one `postMessage` per turn of the loop, whatever the
 * number of tasks, because waking the other thread is what costs.
 */

const path = require('path');
const { MessageChannel, Worker, receiveMessageOnPort } = require('worker_threads');
const { ITEM } = require('./streaming');
const { Table } = require('./table');
const { failure } = require('./tasks');

// How long past its deadline a handler may leave an abort signal unseen before
// the thread counts as blocked.
const BLOCKED_AFTER_MS = 1000;

class HandlerThread {
  constructor({ agentDir, maxResultBytes }) {
    this._options = { agentDir, maxResultBytes };
    this._entries = new Table(); // by the task's sequence
    this._outbox = [];
    this._flush = () => {
      const batch = this._outbox;
      this._outbox = [];
      if (this._worker && batch.length) this._port.postMessage(batch);
    };
    this._worker = undefined;
    this._port = undefined;
    this._progress = undefined;
    this._stopped = false;
  }

  /**
   * Starts the thread and loads the agent's index module in it.
   *
   * @returns {Promise<Array<{name, about}>>} The functions that it exports.
   * @throws a failure AGENT_BROKEN where the module cannot be loaded.
   */
  start() {
    return new Promise((resolve, reject) => this._spawn(resolve, reject));
  }

  /** Runs a task; see Executor. */
  run(task, target, done, item) {
    if (!this._worker) this._spawn();
    const { sequence } = task;
    const message = [
      sequence, target.file, target.name, task.command, task.text, task.id, task.user, task.requestId, task.deadline,
    ];
    this._entries.set(sequence, { task, done, item, message, timer: undefined });
    task.taken = (units) => this._send([sequence, units]);
    this._send(message);
    return (reason) => this._abort(sequence, reason);
  }

  stop() {
    this._stopped = true;
    if (this._worker) this._worker.terminate();
  }

  _send(message) {
    if (this._outbox.push(message) === 1) setImmediate(this._flush);
  }

  _abort(sequence, reason) {
    const entry = this._entries.get(sequence);
    if (!entry) return;
    this._send([sequence, reason]);
    const delay = Math.max(entry.task.deadline - Date.now(), 0) + BLOCKED_AFTER_MS;
    entry.timer = setTimeout(() => this._endBlocked(sequence), Math.min(delay, 0x7fffffff));
  }

  _spawn(resolve = () => {}, reject = () => {}) {
    // [the task that holds the thread now, the last one that was begun]
    this._progress = new Int32Array(new SharedArrayBuffer(8));
    const worker = new Worker(path.join(__dirname, 'worker.js'), {
      workerData: { ...this._options, progress: this._progress },
    });
    const { port1: port, port2: theirs } = new MessageChannel();
    worker.postMessage(theirs, [theirs]);
    this._worker = worker;
    this._port = port;
    let end;
    const hear = (message) => {
      if (Array.isArray(message)) message.forEach((answer) => this._take(answer));
      else if (message.loaded) resolve(message.loaded);
      else end = end || message;
    };
    port.on('message', hear);
    worker.on('error', (error) => {
      end = end || { ending: `failed: ${error.message}` };
    });
    worker.on('exit', (code) => {
      // What it said last may be on its way still.
      for (let said = receiveMessageOnPort(port); said; said = receiveMessageOnPort(port)) hear(said.message);
      port.close();
      end = end || { ending: `ended with exit status ${code}` };
      reject(failure(500, 'AGENT_BROKEN', end.broken || `The agent's index module, while it was loaded, ${end.ending}.`));
      if (this._worker === worker) this._ended(end);
    });
  }

  /** Takes what the thread says; see worker.js. */
  _take(message) {
    const [sequence, text, failed] = message;
    const entry = this._entries.get(sequence);
    if (!entry) return;
    if (failed === ITEM) {
      entry.item(text);
      return;
    }
    this._entries.delete(sequence);
    clearTimeout(entry.timer);
    if (message.length > 1) entry.done(text, failed);
  }

  _endBlocked(sequence) {
    const holder = Atomics.load(this._progress, 0);
    const worker = this._worker;
    this._ended({ ending: 'blocked it past its deadline', sequence: this._entries.has(holder) ? holder : sequence });
    // Not waited for: a thread that sits in a system call ends only after it.
    if (worker) worker.terminate();
  }

  /** Takes over from a thread that is gone: fails what it had begun, passes on what it had not. */
  _ended({ ending, broken, sequence }) {
    const begun = Atomics.load(this._progress, 1);
    const entries = [...this._entries.values()];
    const isLost = (entry) => broken || this._stopped || ((entry.task.sequence - begun) | 0) <= 0;
    const lost = entries.filter(isLost);
    const kept = entries.filter((entry) => !isLost(entry));
    const culprit = this._entries.get(sequence) || (lost.length === 1 ? lost[0] : undefined);
    this._entries = new Table(kept.map((entry) => [entry.task.sequence, entry]));
    this._outbox = [];
    this._worker = undefined;
    if (!broken && !this._stopped) this._spawn();
    kept.forEach((entry) => this._send(entry.message));
    for (const entry of lost) {
      clearTimeout(entry.timer);
      entry.done(undefined, failure(500, 'HANDLER_FAILED', broken || explain(culprit, entry, ending)));
    }
  }
}

function explain(culprit, entry, ending) {
  const { command } = entry.task;
  if (culprit === entry) return `${command} ended the worker that runs the handlers: it ${ending}.`;
  const other = culprit ? `another task (${culprit.task.command}, ${culprit.task.id})` : 'one of several tasks';
  return `${command} was lost: the worker ended because ${other} ${ending}.`;
}

module.exports = { HandlerThread };
