'use strict';
/**
 * Which handler serves which command.
 *
 * The agent's directory and manifest enter, targets leave:
 * `{kind: 'command'|'script'|'handler'|'function'|'runTask', ...}`.  Read once at
 * start, as a release never changes.  Runs nothing itself.
 */

const fs = require('fs');
const path = require('path');
const { failure, isCommandName } = require('./tasks');

const NODE_EXTENSIONS = ['.js', '.cjs', '.mjs'];

class Catalogue {
  /**
   * @param {string} agentDir
   * @param {{commands: object, runTask: ?string}} manifest
   * @param {Array<{name: string, about: ?string}>} functions What the index module exports.
   */
  constructor(agentDir, manifest, functions) {
    this._targets = new Map();
    this._foreign = new Map();
    this._runTask = manifest.runTask === null ? undefined : { kind: 'runTask', command: manifest.runTask };
    for (const [name, command] of Object.entries(manifest.commands)) this._add(name, { kind: 'command', command });
    this._addHandlers(path.join(agentDir, 'handlers'));
    for (const { name, about } of functions) this._add(name, { kind: 'function', name, about });
  }

  /** Gives the target that serves `command`, or undefined. */
  find(command) {
    return this._targets.get(command) || this._runTask;
  }

  /** What `GET /commands` answers. */
  list() {
    return [...this._targets].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, target]) => {
      const about = target.file ? firstComment(target.file) : target.about;
      return about ? { name, kind: target.kind, about } : { name, kind: target.kind };
    });
  }

  /** The failure for a command that nothing serves: it lists those there are. */
  unknown(command) {
    const commands = [...this._targets.keys()].sort();
    const foreign = this._foreign.get(command);
    let message = `There is no command ${command}. `;
    if (foreign) message += `(${foreign} is there, but this agent runs on Node.) `;
    message += commands.length ? `There are: ${commands.join(', ')}.` : 'This agent has no commands.';
    return failure(404, 'UNKNOWN_COMMAND', message, { commands });
  }

  _add(name, target) {
    if (!this._targets.has(name)) this._targets.set(name, target);
  }

  _addHandlers(directory) {
    let files;
    try {
      files = fs.readdirSync(directory).filter((file) => fs.statSync(path.join(directory, file)).isFile());
    } catch (error) {
      if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return;
      throw error;
    }
    for (const extension of [...NODE_EXTENSIONS, '.sh', '']) {
      for (const file of files) {
        const full = path.join(directory, file);
        if (!file.endsWith(extension) || (extension === '' && !isExecutable(full))) continue;
        const name = file.slice(0, file.length - extension.length);
        if (!isCommandName(name)) continue;
        const inProcess = NODE_EXTENSIONS.includes(extension);
        this._add(name, { kind: inProcess ? 'handler' : 'script', file: full });
      }
    }
    for (const file of files) {
      if (file.endsWith('.py')) this._foreign.set(file.slice(0, -3), `handlers/${file}`);
    }
  }
}

function isExecutable(file) {
  try {
    fs.accessSync(file, fs.constants.X_OK);
    return true;
  } catch (error) {
    return false;
  }
}

/** Gives the text of the comment that a source file starts with, one line of it. */
function firstComment(file) {
  let head;
  try {
    head = fs.readFileSync(file, 'latin1').slice(0, 2000);
    head = Buffer.from(head, 'latin1').toString('utf8');
  } catch (error) {
    return undefined;
  }
  const pattern = /^(?:#!.*\n)?\s*(?:['"]use strict['"];?\s*)?(?:\/\/|\/\*+|#(?!!))[ \t*\n]*([^\n]*)/;
  const found = pattern.exec(head);
  return found ? found[1].replace(/\*\/\s*$/, '').trim() || undefined : undefined;
}

module.exports = { Catalogue };
