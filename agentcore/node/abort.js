'use strict';
/**
 * AbortController as Node 18 has it.  Node 14 has none, and here is what handlers use of it;
 * the signals of some later ones know no reason, which is put there.
 */

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

class OwnController {
  signal = new AbortSignal();

  abort(reason) {
    this.signal.fire(reason);
  }
}

/** Gives one that aborts with a reason, from one that knows none. */
function withReason(Controller) {
  return class extends Controller {
    constructor() {
      super();
      const { signal } = this;
      signal.reason = undefined;
      signal.throwIfAborted = () => {
        if (signal.aborted) throw signal.reason;
      };
    }

    abort(reason) {
      if (!this.signal.aborted) this.signal.reason = reason;
      super.abort();
    }
  };
}

function controller() {
  if (typeof AbortController !== 'function') return OwnController;
  return 'throwIfAborted' in new AbortController().signal ? AbortController : withReason(AbortController);
}

module.exports = { AbortController: controller() };
