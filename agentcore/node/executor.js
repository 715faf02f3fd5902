'use strict';
/**
 * Runs tasks: who may run now, who waits, and what ends one.
 *
 * Tasks enter from the wires; exactly one outcome leaves for each, or none where
 * the caller went away first.  Knows nothing of HTTP or files, and only the
 * interface `run(task, target, done, item) -> abort(reason)` of what runs handlers.
 */

const { Table } = require('./table');
const { failure, paramsOf } = require('./tasks');

// Beyond `concurrency`, tasks wait in line until their deadline: two gateway
// workers may each believe that the last place is free.
const MAX_WAITING = 1024;

let lastSequence = 0;

class Task {
  /**
   * @param {{text: string, command: string, params: ?Array}} call `text` is the task's JSON, or that
   *   of its params alone; those may be left to be read by who needs them.
   * @param {{id: ?string, user: ?string, requestId: ?string, deadline: ?number}} about
   */
  constructor(call, about) {
    lastSequence = (lastSequence + 1) | 0 || 1; // 32 bits: threads share it through an Int32Array
    this.sequence = lastSequence;
    this.id = about.id || `${process.pid}-${this.sequence}`;
    this.text = call.text;
    this.command = call.command;
    this._params = call.params;
    this.user = about.user || 'InternetUser';
    this.requestId = about.requestId || this.id;
    this.deadline = about.deadline;
    this.target = undefined;
    this.abort = undefined;
    this.done = undefined;
    /** Whether the caller reads items as they come, for however long. */
    this.toEvents = false;
    /** Takes an item of a streaming handler; undefined where the caller wants them all at once. */
    this.item = undefined;
    /** Told how much of its items has left, in units of text; the runner sets it. */
    this.taken = () => {};
    this.finished = false;
    this.isOpenEnded = false;
  }

  /** @throws a failure with BAD_JSON. */
  get params() {
    if (this._params === undefined) this._params = paramsOf(this.text);
    return this._params;
  }
}

class Executor {
  /**
   * @param catalogue
   * @param runners `{thread, scripts}`: in-process handlers and shell ones.
   * @param {{concurrency: number, timeoutMs: number, maxResultBytes: number}} limits
   */
  constructor(catalogue, { thread, scripts }, { concurrency, timeoutMs, maxResultBytes }) {
    this._catalogue = catalogue;
    this._runners = { handler: thread, function: thread, command: scripts, script: scripts, runTask: scripts };
    this._concurrency = concurrency;
    this._timeoutMs = timeoutMs;
    this._maxResultBytes = maxResultBytes;
    this._tasks = new Table(); // by sequence
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
   *   JSON text, with a failure, or with neither after the last item; never after `cancel`.
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
    this._tasks.set(task.sequence, task);
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
    return [...this._tasks.values()].reverse();
  }

  _refuse(task, failed) {
    task.finished = true;
    task.done(undefined, failed);
  }

  _start(task) {
    this._running += 1;
    task.abort = () => {};
    if (task.item === undefined) this._collect(task);
    const done = (text, failed) => this._finish(task, text, failed);
    const abort = this._runners[task.target.kind].run(task, task.target, done, (text) => this._item(task, text));
    if (abort) task.abort = abort;
  }

  /** Passes on an item of a streaming handler; who reads them as they come waits only for the first. */
  _item(task, text) {
    if (task.finished) return;
    task.isOpenEnded = task.toEvents;
    task.item(text);
  }

  /** Makes one result of a task's items. */
  _collect(task) {
    const items = [];
    const { done } = task;
    let size = 1;
    task.item = (text) => {
      items.push(text);
      size += Buffer.byteLength(text) + 1;
      if (size <= this._maxResultBytes) {
        task.taken(text.length);
        return;
      }
      this._finish(task, undefined, tooMuch(task, this._maxResultBytes));
      task.abort('cancelled');
    };
    task.done = (text, failed) => done(text === undefined && !failed ? `[${items.join(',')}]` : text, failed);
  }

  _finish(task, text, failed) {
    if (task.finished) return;
    this._end(task);
    task.done(text, failed);
  }

  _end(task) {
    task.finished = true;
    this._tasks.delete(task.sequence);
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
      if (task.isOpenEnded) continue;
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

function tooMuch(task, limit) {
  return failure(
    500,
    'HANDLER_FAILED',
    `The items of ${task.command} are more than ${limit} bytes of JSON, the most that is taken over this wire. Return less, in pages, or raise PLOINKY_MAX_RESULT_BYTES.`
  );
}

module.exports = { Executor, Task };
