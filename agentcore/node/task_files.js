'use strict';
/**
 * The files of the tasks in a queue directory, and the order in which they come and go.
 *
 * Ids, tasks and answers enter and leave; which task runs when is `queue.js`' business.
 * The lock is made first and removed last, and an answer is in place before its task
 * goes: killed between any two calls, an engine loses no task and has none run twice.
 *
 * The calls are synchronous on purpose: on a local directory one costs microseconds,
 * a trip through the thread pool ten times that.  Making, emptying and removing files
 * is what is dear on a disk, so the file of a task that is done is kept in `tmp/`, open,
 * and written over for a later answer; the server does so with answers it has read.
 * So a lock is made as a further name for one file: as exclusive as a directory, with
 * which it may share `locks/`, at a tenth of the cost and less.
 */

const fs = require('fs');
const { Table } = require('./table');

// Kept for writing over, at most; more than are usually in flight.
const SPARE_FILES = 64;
const READ_BYTES = 65536;
// What lies there need not be a file: opening a pipe must not wait for its other end.
const { O_NONBLOCK, O_RDONLY, O_RDWR } = fs.constants;
// A longer file is not cut but filled up with blanks, which mean nothing in JSON.
const MAX_BLANKS = 1024;

class TaskFiles {
  /** @param root The queue directory. */
  constructor(root) {
    this._root = root;
    this._buffer = Buffer.allocUnsafe(READ_BYTES);
    this._read = new Table(); // id -> {name, descriptor, size} of a task that was read
    this._spare = []; // the same, of tasks that are done
    this._room = SPARE_FILES;
    this._mode = O_RDWR;
    // Never an earlier engine's, whose locks would look as young as these.
    this._key = `${root}/tmp/lock-${process.pid}-${Date.now().toString(36)}`;
    this._links = true;
  }

  /** Lists what lies in `tasks/`, ids or not. */
  names() {
    return fs.readdirSync(`${this._root}/tasks`);
  }

  isQueued(id) {
    return fs.existsSync(`${this._root}/tasks/${id}`);
  }

  isAnswered(id) {
    return ['results', 'errors'].some((place) => fs.existsSync(`${this._root}/${place}/${id}`));
  }

  /** Gives false where somebody has the task already. */
  lock(id) {
    const name = `${this._root}/locks/${id}`;
    try {
      if (!this._link(name)) fs.mkdirSync(name);
      return true;
    } catch (error) {
      if (error.code === 'EEXIST') return false;
      throw error;
    }
  }

  /** Gives when the lock was made, in Unix ms. */
  lockedAt(id) {
    return fs.statSync(`${this._root}/locks/${id}`).mtimeMs;
  }

  unlock(id) {
    this._forget(id);
    const name = `${this._root}/locks/${id}`;
    isThere(() => {
      try {
        fs.unlinkSync(name);
      } catch (error) {
        if (error.code === 'ENOENT') throw error;
        fs.rmdirSync(name);
      }
    });
  }

  /** Gives a task's bytes, good until the next call, or undefined where it is gone. */
  read(id) {
    let descriptor;
    if (!isThere(() => (descriptor = this._open(`${this._root}/tasks/${id}`)))) return undefined;
    const spare = { name: `${this._root}/tmp/${id}.spare`, descriptor, size: 0 };
    this._forget(id);
    this._read.set(id, spare);
    spare.size = fs.readSync(descriptor, this._buffer, 0, READ_BYTES, null);
    const start = this._buffer.subarray(0, spare.size);
    if (spare.size < READ_BYTES) return start;
    const whole = Buffer.concat([start, fs.readFileSync(descriptor)]);
    spare.size = whole.length;
    return whole;
  }

  /** Puts an answer into place, then takes the task out; does nothing where it was taken back. */
  answer(id, place, text) {
    const target = `${this._root}/${place}/${id}`;
    try {
      if (!this.isQueued(id)) return;
      if (!this._reuse(text, target)) write(`${this._root}/tmp/${id}.answer`, text, target);
      this.remove(id);
    } finally {
      this._forget(id);
    }
  }

  /** Takes a task out, if it is there. */
  remove(id) {
    const file = `${this._root}/tasks/${id}`;
    const spare = this._read.get(id);
    if (!spare || this._mode === O_RDONLY || spare.size >= READ_BYTES || this._spare.length >= this._room) {
      isThere(() => fs.unlinkSync(file));
    } else if (isThere(() => fs.renameSync(file, spare.name))) {
      this._read.delete(id);
      this._spare.push(spare);
    }
  }

  /** Lets go of what is spare, for a while in which nothing runs. */
  rest() {
    this._spare.splice(0).forEach(discard);
    isThere(() => fs.unlinkSync(this._key));
  }

  /** Lets go of what is spare, and keeps nothing more. */
  close() {
    this._room = 0;
    this.rest();
  }

  /** Makes a lock as a further name; gives false where the file system has no such thing. */
  _link(name) {
    if (!this._links) return false;
    const now = Date.now() / 1000;
    // The time of the lock that was made last is that of all: none looks older than it is.
    if (!isThere(() => fs.utimesSync(this._key, now, now))) fs.writeFileSync(this._key, '');
    try {
      fs.linkSync(this._key, name);
    } catch (error) {
      if (error.code === 'EEXIST' || error.code === 'ENOENT') throw error;
      this._links = false;
    }
    return this._links;
  }

  _open(file) {
    try {
      return fs.openSync(file, this._mode | O_NONBLOCK);
    } catch (error) {
      if (error.code !== 'EACCES' || this._mode === O_RDONLY) throw error;
      this._mode = O_RDONLY; // the server is another user: its files are not for writing over
      return fs.openSync(file, this._mode | O_NONBLOCK);
    }
  }

  _forget(id) {
    const spare = this._read.get(id);
    if (!spare) return;
    this._read.delete(id);
    fs.closeSync(spare.descriptor);
  }

  /** Puts a text into place in a spare file; gives false where there is none that will do. */
  _reuse(text, target) {
    const spare = this._spare.pop();
    if (!spare) return false;
    try {
      overwrite(spare, text);
      fs.renameSync(spare.name, target);
    } catch (error) {
      discard(spare); // swept, or the disk is full
      return false;
    }
    fs.closeSync(spare.descriptor);
    return true;
  }
}

function write(fresh, text, target) {
  try {
    fs.writeFileSync(fresh, text);
    fs.renameSync(fresh, target);
  } catch (error) {
    isThere(() => fs.unlinkSync(fresh));
    throw error;
  }
}

function overwrite({ descriptor, size }, text) {
  const needed = Buffer.byteLength(text);
  const blanks = size - needed;
  const filled = blanks > 0 && blanks <= MAX_BLANKS ? text + ' '.repeat(blanks) : text;
  if (fs.writeSync(descriptor, filled, 0) < needed) throw new Error('The disk is full.');
  if (blanks > MAX_BLANKS) fs.ftruncateSync(descriptor, needed);
}

function discard({ name, descriptor }) {
  fs.closeSync(descriptor);
  isThere(() => fs.unlinkSync(name));
}

/** Does something with a file; gives false where there is none. */
function isThere(call) {
  try {
    call();
    return true;
  } catch (error) {
    if (error.code === 'ENOENT') return false;
    throw error;
  }
}

module.exports = { TaskFiles };
