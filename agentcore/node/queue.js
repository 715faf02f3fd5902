'use strict';
/**
 * The file wire: `tasks/<id>` in, `results/<id>` or `errors/<id>` out.
 *
 * Every file is written in `tmp/` and renamed into place; `locks/<id>` is made by
 * whoever runs a task.  Changes are seen by inotify; a slow look at the whole
 * directory is the safety net, and a fast one stands in where inotify is not to
 * be had.
 */

const fs = require('fs');
const path = require('path');
const { failure, isCommandName, isFailure, readTask } = require('./tasks');
const { Task } = require('./executor');
const { TaskFiles } = require('./task_files');
const { Table } = require('./table');

const RESCAN_MS = 1000;
const POLL_MS = 20;
// How long past its deadline a lock whose holder may be dead is left alone.
const LOCK_GRACE_MS = 2000;
const DIRECTORIES = ['tasks', 'results', 'errors', 'locks', 'tmp'];

/** Makes what is missing of a queue directory. */
function prepareQueue(root) {
  for (const name of DIRECTORIES) fs.mkdirSync(path.join(root, name), { recursive: true, mode: 0o700 });
}

/** Puts a file into place whole: written in `tmp/`, then renamed. */
function publish(root, name, text) {
  const temporary = `${root}/tmp/${name.replace('/', '.')}.${process.pid}`;
  fs.writeFileSync(temporary, text);
  fs.renameSync(temporary, `${root}/${name}`);
}

function removeIfThere(file) {
  try {
    fs.unlinkSync(file);
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
  }
}

class FileWire {
  constructor(root, executor, { timeoutMs, pollMs = POLL_MS }) {
    this._root = root;
    this._files = new TaskFiles(root);
    this._executor = executor;
    this._timeoutMs = timeoutMs;
    this._pollMs = pollMs;
    this._running = new Table();
    this._backlog = new Table();
    this._removed = new Table();
    this._stopped = false;
  }

  start() {
    let interval = RESCAN_MS;
    try {
      this._watcher = fs.watch(`${this._root}/tasks`, (event, id) => this._noticed(id));
      this._watcher.on('error', () => this._poll(this._pollMs));
    } catch (error) {
      interval = this._pollMs;
    }
    this._poll(interval);
    this._scan();
  }

  /** Takes no more tasks; those that run go on. */
  stop() {
    this._stopped = true;
    this._backlog.clear();
    this._files.close();
  }

  _poll(interval) {
    clearInterval(this._timer);
    this._timer = setInterval(() => this._scan(), interval);
  }

  _noticed(id) {
    if (id === null) this._scan();
    else if (this._removed.delete(id)) return;
    else if (this._running.has(id)) this._checkCancelled(id);
    else this._offer(id);
  }

  _scan() {
    if (this._running.size === 0) this._files.rest();
    this._removed.clear();
    const ids = this._files.names().sort();
    const present = new Set(ids);
    for (const id of [...this._running.keys()]) if (!present.has(id)) this._checkCancelled(id);
    for (const id of ids) if (!this._running.has(id)) this._offer(id);
  }

  _offer(id) {
    if (this._stopped || !isCommandName(id)) return;
    if (this._executor.busy) this._backlog.add(id);
    else this._claim(id);
  }

  _checkCancelled(id) {
    if (this._files.isQueued(id)) return;
    const task = this._running.get(id);
    this._running.delete(id);
    this._executor.cancel(task);
    this._unlock(id);
    this._next();
  }

  _next() {
    for (const id of this._backlog.keys()) {
      if (this._executor.busy) return;
      this._backlog.delete(id);
      this._claim(id);
    }
  }

  // --- one task's way ---------------------------------------------------------

  _claim(id) {
    try {
      if (!this._files.lock(id)) {
        this._breakLock(id);
        return;
      }
    } catch (error) {
      if (error.code !== 'ENOENT') console.error(`Task ${id} cannot be locked: ${error.message}`);
      return;
    }
    // Read under the lock: whoever held it before may have finished the task.
    const bytes = this._read(id);
    if (bytes === undefined) this._unlock(id);
    else this._submit(id, bytes);
  }

  _read(id) {
    try {
      return this._files.read(id);
    } catch (error) {
      console.error(`Task ${id} cannot be read: ${error.message}`);
      return undefined;
    }
  }

  _submit(id, bytes) {
    let call;
    try {
      call = readTask(bytes);
      if (call.fields.id !== undefined && call.fields.id !== id) {
        throw failure(400, 'BAD_JSON', `The task file ${id} holds the task ${JSON.stringify(call.fields.id)}.`);
      }
    } catch (error) {
      if (!isFailure(error)) throw error;
      this._finish(id, undefined, error);
      return;
    }
    const { user, requestId, deadline } = call.fields;
    const task = new Task(call, { id, user, requestId, deadline });
    this._running.set(id, task);
    this._executor.submit(task, (text, failed) => {
      this._running.delete(id);
      this._finish(id, text, failed);
      this._next();
    });
  }

  _finish(id, text, failed) {
    const key = JSON.stringify(id);
    this._removed.add(id);
    try {
      if (failed) this._files.answer(id, 'errors', `{"id":${key},"error":${JSON.stringify(failed)}}`);
      else this._files.answer(id, 'results', `{"id":${key},"data":${text}}`);
    } catch (error) {
      // The lock stays: without a result the task would be run again.
      console.error(`The result of task ${id} cannot be written: ${error.message}`);
      return;
    }
    this._unlock(id);
  }

  _unlock(id) {
    try {
      this._files.unlock(id);
    } catch (error) {
      console.error(`The lock of task ${id} cannot be removed: ${error.message}`);
    }
  }

  /** Ends the task of an executor that died: done already, or past its deadline. */
  _breakLock(id) {
    if (this._files.isAnswered(id)) {
      this._files.remove(id);
      this._unlock(id);
    } else if (Date.now() > this._lockDeadline(id) + LOCK_GRACE_MS) {
      this._finish(id, undefined, failure(504, 'TASK_TIMEOUT', 'The agent ended while it ran this task.'));
    }
  }

  _lockDeadline(id) {
    try {
      const { deadline } = JSON.parse(fs.readFileSync(`${this._root}/tasks/${id}`, 'utf8'));
      if (deadline > 0) return deadline;
    } catch (error) {
      if (error.code === 'ENOENT') return Infinity;
    }
    try {
      return this._files.lockedAt(id) + this._timeoutMs;
    } catch (error) {
      return Infinity;
    }
  }
}

module.exports = { FileWire, prepareQueue, publish, removeIfThere };
