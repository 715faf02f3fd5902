'use strict';
/** AbortController for Node 14.0 to 14.16, which have none: what handlers use of it. */

const { EventEmitter } = require('events');

class AbortSignal {
  #events = new EventEmitter();
  aborted = false;
  reason = undefined;
  onabort = null;

  addEventListener(type, listener, { once = false } = {}) {
    if (once) this.#events.once(type, listener);
    else this.#events.on(type, listener);
  }

  removeEventListener(type, listener) {
    this.#events.removeListener(type, listener);
  }

  throwIfAborted() {
    if (this.aborted) throw this.reason;
  }

  /** Fires; AbortController alone calls it. */
  fire(reason) {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason;
    const event = { type: 'abort', target: this };
    if (this.onabort) this.onabort(event);
    this.#events.emit('abort', event);
  }
}

class AbortController {
  signal = new AbortSignal();

  abort(reason = new Error('This operation was aborted')) {
    this.signal.fire(reason);
  }
}

module.exports = { AbortController };
