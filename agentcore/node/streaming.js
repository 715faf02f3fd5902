'use strict';
/**
 * Runs the iterator that a streaming handler returned, no faster than its items are taken.
 *
 * An iterator enters, the JSON of its items leaves.  Part of the handlers' thread.
 */

/** Marks an item among what the thread says. */
const ITEM = 'item';
// So much may be on its way before the iterator is asked for more, in units of text.
const AHEAD_UNITS = 65536;
// An iterator that never waits lets the thread do other things this often.
const BREATHE_MS = 10;

/** Tells whether what a handler returned is to be iterated: iterators are, lists are not. */
function isStream(value) {
  return value !== null && typeof value === 'object' && (Symbol.asyncIterator in value || typeof value.next === 'function');
}

class Streaming {
  /**
   * @param value What `isStream` said yes to.
   * @param {{json: (item) => string, item: (text) => void, enter: () => void, leave: () => void}} task
   *   `json` throws where an item cannot be written; `enter` and `leave` are called around what
   *   may hold the thread.
   */
  constructor(value, task) {
    this._iterator = value[Symbol.asyncIterator] ? value[Symbol.asyncIterator]() : value;
    this._task = task;
    this._ahead = 0;
    this._resume = undefined;
    this._isOver = false;
  }

  /** Resolves when the iterator has ended or was stopped; throws what it threw. */
  async run() {
    let breath = Date.now();
    while (!this._isOver) {
      const step = await this._next();
      if (step === null || typeof step !== 'object') throw new TypeError(`The iterator gave ${String(step)}, not {done, value}.`);
      const { done, value } = step;
      if (done || this._isOver) break;
      const text = this._task.json(await value); // a plain iterator may give promises
      this._ahead += text.length;
      this._task.item(text);
      if (this._ahead >= AHEAD_UNITS && !this._isOver) await new Promise((resolve) => (this._resume = resolve));
      if (Date.now() - breath < BREATHE_MS) continue;
      await new Promise(setImmediate);
      breath = Date.now();
    }
    this._isOver = true;
  }

  /** Items have left: goes on, where it waited for that. */
  taken(units) {
    this._ahead -= units;
    if (this._ahead < AHEAD_UNITS) this._wake();
  }

  /** Ends the iterator early, as `break` in a loop would. */
  stop() {
    if (this._isOver) return;
    this._isOver = true;
    this._wake();
    const ignore = () => {};
    try {
      if (typeof this._iterator.return === 'function') Promise.resolve(this._iterator.return()).catch(ignore);
    } catch (error) {
      ignore(error); // nobody waits for what it has to say
    }
  }

  _next() {
    this._task.enter();
    try {
      return this._iterator.next();
    } finally {
      this._task.leave();
    }
  }

  _wake() {
    const resume = this._resume;
    this._resume = undefined;
    if (resume) resume();
  }
}

module.exports = { ITEM, Streaming, isStream };
