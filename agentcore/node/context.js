'use strict';
/**
 * What a handler is given beside its parameters.
 *
 * Signal and log are made on first use: most handlers touch neither.
 */

const { inspect } = require('util');
const { AbortController } = require('./abort');

const { stringify } = JSON; // whatever handlers make of that

class Context {
  #reason;
  #controller;
  #log;

  constructor(taskId, command, user, requestId, deadline) {
    this.taskId = taskId;
    this.command = command;
    this.user = user;
    this.requestId = requestId;
    /** When the task must be done, in ms since 1970. */
    this.deadline = deadline;
  }

  /** An AbortSignal: the caller went away, or the deadline passed. */
  get signal() {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#reason) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  /** `debug|info|warn|error(message, fields?)`: one JSON line on stderr. */
  get log() {
    if (!this.#log) {
      const { command, taskId, requestId } = this;
      const at = (level) => (message, fields) => {
        const line = { time: Date.now(), level, message: String(message), command, taskId, requestId, ...fields };
        process.stderr.write(`${jsonOf(line)}\n`);
      };
      this.#log = { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
    }
    return this.#log;
  }

  /** Fires the signal; the engine calls it. */
  abort(reason) {
    this.#reason = new Error(reason === 'timeout' ? 'The deadline of the task has passed.' : 'The caller went away.');
    this.#reason.name = reason === 'timeout' ? 'TimeoutError' : 'AbortError';
    if (this.#controller) this.#controller.abort(this.#reason);
  }
}

/** Gives a line's JSON; a field that has none (a BigInt, what contains itself) in words. */
function jsonOf(line) {
  try {
    return stringify(line);
  } catch (_) {
    const inWords = (value) => (typeof value === 'object' || typeof value === 'bigint' ? inspect(value) : value);
    return stringify(Object.fromEntries(Object.entries(line).map(([name, value]) => [name, inWords(value)])));
  }
}

module.exports = { Context };
