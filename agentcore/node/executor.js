'use strict';
/**
 * Runs tasks: who may run now, who waits, and what ends one.
 *
 * Tasks enter from the wires; exactly one outcome leaves for each, or none where
 * the caller went away first.  Knows nothing of HTTP or files, and only the
 * interface `run(task, target, done) -> abort(reason)` of what runs handlers.
 */

const { failure } = require('./tasks');

// Beyond `concurrency`, tasks wait in line until their deadline: two gateway
// workers may each believe that the last place is free.
const MAX_WAITING = 1024;

let lastSequence = 0;

class Task {
  /**
   * @param {{text: string, command: string, params: Array}} call
   * @param {{id: ?string, user: ?string, requestId: ?string, deadline: ?number}} about
   */
  constructor(call, about) {
    lastSequence = (lastSequence + 1) | 0 || 1; // 32 bits: threads share it through an Int32Array
    this.sequence = lastSequence;
    this.id = about.id || `${process.pid}-${this.sequence}`;
    this.text = call.text;
    this.command = call.command;
    this.params = call.params;
    this.user = about.user || 'InternetUser';
    this.requestId = about.requestId || this.id;
    this.deadline = about.deadline;
    this.target = undefined;
    this.abort = undefined;
    this.done = undefined;
    this.finished = false;
  }
}

class Executor {
  /**
   * @param catalogue
   * @param runners `{thread, scripts}`: in-process handlers and shell ones.
   * @param {{concurrency: number, timeoutMs: number}} limits
   */
  constructor(catalogue, { thread, scripts }, { concurrency, timeoutMs }) {
    this._catalogue = catalogue;
    this._runners = { handler: thread, function: thread, command: scripts, script: scripts, runTask: scripts };
    this._concurrency = concurrency;
    this._timeoutMs = timeoutMs;
    this._tasks = new Set();
    this._waiting = [];
    this._running = 0;
    this._timer = undefined;
    this._timerAt = Infinity;
    this._idle = [];
    this.draining = false;
  }

  get inflight() {
    return this._tasks.size;
  }

  get busy() {
    return this._running >= this._concurrency;
  }

  /**
   * Takes a task.
   *
   * @param {Task} task
   * @param {(text: ?string, failed: ?object) => void} done Called once, with the result's
   *   JSON text or with a failure; never after `cancel`.
   */
  submit(task, done) {
    const now = Date.now();
    if (!(task.deadline > 0)) task.deadline = now + this._timeoutMs;
    task.done = done;
    if (this.draining) return this._refuse(task, failure(503, 'DRAINING', 'The agent is stopping.'));
    task.target = this._catalogue.find(task.command);
    if (task.target === undefined) return this._refuse(task, this._catalogue.unknown(task.command));
    if (task.deadline <= now) return this._refuse(task, timedOut(task));
    if (this.busy && this._waiting.length >= MAX_WAITING) {
      return this._refuse(task, failure(503, 'OVERLOADED', `The agent runs ${this._running} tasks and ${MAX_WAITING} wait.`));
    }
    this._tasks.add(task);
    this._watch(task.deadline);
    if (this.busy) this._waiting.push(task);
    else this._start(task);
  }

  /** Ends a task whose caller went away: its handler is told, nobody is answered. */
  cancel(task) {
    if (task.finished) return;
    this._end(task);
    if (task.abort) task.abort('cancelled');
  }

  /** Resolves when nothing is in flight any more. */
  whenIdle() {
    return this._tasks.size ? new Promise((resolve) => this._idle.push(resolve)) : Promise.resolve();
  }

  /** Fails what is still in flight, because the agent stops. */
  abandon() {
    for (const task of this._youngestFirst()) {
      this._finish(task, undefined, failure(503, 'DRAINING', 'The agent stopped before the task was done.'));
      if (task.abort) task.abort('cancelled');
    }
  }

  /** Those that wait come before those that run: none starts because another one is ended. */
  _youngestFirst() {
    return [...this._tasks].reverse();
  }

  _refuse(task, failed) {
    task.finished = true;
    task.done(undefined, failed);
  }

  _start(task) {
    this._running += 1;
    task.abort = () => {};
    const abort = this._runners[task.target.kind].run(task, task.target, (text, failed) => this._finish(task, text, failed));
    if (abort) task.abort = abort;
  }

  _finish(task, text, failed) {
    if (task.finished) return;
    this._end(task);
    task.done(text, failed);
  }

  _end(task) {
    task.finished = true;
    this._tasks.delete(task);
    if (task.abort) {
      this._running -= 1;
      while (this._waiting.length && !this.busy) {
        this._start(this._waiting.shift());
      }
    } else {
      this._waiting.splice(this._waiting.indexOf(task), 1);
    }
    if (this._tasks.size === 0 && this._idle.length) this._idle.splice(0).forEach((resolve) => resolve());
  }

  /** Keeps one timer, for the earliest deadline: none is started or stopped per task. */
  _watch(deadline) {
    if (deadline >= this._timerAt) return;
    clearTimeout(this._timer);
    this._timerAt = deadline;
    const delay = Math.min(Math.max(deadline - Date.now(), 0), 0x7fffffff);
    this._timer = setTimeout(() => this._expire(), delay);
  }

  _expire() {
    this._timerAt = Infinity;
    const now = Date.now();
    let next = Infinity;
    for (const task of this._youngestFirst()) {
      if (task.deadline > now) next = Math.min(next, task.deadline);
      else this._timeOut(task);
    }
    if (next < Infinity) this._watch(next);
  }

  _timeOut(task) {
    this._finish(task, undefined, timedOut(task));
    if (task.abort) task.abort('timeout');
  }
}

function timedOut(task) {
  return failure(504, 'TASK_TIMEOUT', `${task.command} was not done by its deadline, ${new Date(task.deadline).toISOString()}.`);
}

module.exports = { Executor, Task };
