'use strict';
/**
 * The answer of one task as its bytes: a result, or the items of a streaming handler.
 *
 * Items and outcomes enter; pieces of a JSON array, or Server-Sent Events, leave to an
 * outlet.  The same for every wire that can stream; knows neither HTTP nor frames.
 */

const KEEP_ALIVE_MS = 15000;

/**
 * An outlet is what a wire gives for one answer:
 *
 * - `result(text)`, `refuse(failed)`: the whole answer;
 * - or `begin(toEvents)`, `write(text, taken)` and then `end()`, or `fail()` where it cannot be
 *   finished. `taken` is called once the piece has left.
 */
class Items {
  /**
   * @param task Whose answer it is; told by `task.taken(units)` how much of its items has left.
   * @param {boolean} toEvents Whether the caller reads events; else it gets an array.
   * @param outlet
   */
  constructor(task, toEvents, outlet) {
    this.toEvents = toEvents;
    this._task = task;
    this._outlet = outlet;
    this._count = 0;
    this._timer = undefined;
  }

  /** Takes the JSON of the next item. */
  item(text) {
    this._begin();
    const piece = this.toEvents ? event(text) : (this._count ? ',' : '[') + text;
    this._count += 1;
    this._outlet.write(piece, () => this._task.taken(text.length));
  }

  /** Takes the outcome, like the executor's `done`. */
  done(text, failed) {
    if (!this._begun && failed) return this._outlet.refuse(failed);
    if (!this._begun && text !== undefined && !this.toEvents) return this._outlet.result(text);
    this._begin();
    if (failed && !this.toEvents) {
      this.close();
      return this._outlet.fail();
    }
    let rest = '';
    if (text !== undefined) rest = event(text);
    if (failed) rest += event(errorBody(failed, this._task.requestId), 'error');
    else rest += this.toEvents ? event('null', 'end') : this._count ? ']' : '[]';
    this.close();
    this._outlet.write(rest, () => {});
    return this._outlet.end();
  }

  /** Nobody reads it any more. */
  close() {
    clearInterval(this._timer);
  }

  get _begun() {
    return this._timer !== undefined;
  }

  _begin() {
    if (this._begun) return;
    this._outlet.begin(this.toEvents);
    this._timer = this.toEvents ? setInterval(() => this._outlet.write(':\n\n', () => {}), KEEP_ALIVE_MS) : null;
  }
}

/** One Server-Sent Event; line ends in JSON text are blanks. */
function event(text, name) {
  const data = `data: ${text.replace(/[\r\n]+/g, ' ')}\n\n`;
  return name ? `event: ${name}\n${data}` : data;
}

/** The JSON that tells a caller what failed. */
function errorBody({ code, message, details }, requestId) {
  return JSON.stringify({ error: true, code, message, details, requestId });
}

module.exports = { Items, errorBody };
