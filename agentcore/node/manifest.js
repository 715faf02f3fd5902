'use strict';
/**
 * The part of an agent's `manifest.json` that runs inside the container.
 *
 * The agent's directory enters, `{commands, runTask, timeoutMs, concurrency}`
 * leaves.  What else stands in a manifest is the server's business.
 */

const fs = require('fs');
const path = require('path');
const { failure, isCommandName } = require('./tasks');

const invalid = (message) => failure(500, 'MANIFEST_INVALID', message);

/**
 * Reads `<agentDir>/manifest.json`; an agent without one has an empty one.
 *
 * @throws a failure MANIFEST_INVALID with line and column, or the field's path.
 */
function readManifest(agentDir) {
  let text;
  try {
    text = fs.readFileSync(path.join(agentDir, 'manifest.json'), 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return check({});
    throw invalid(`manifest.json cannot be read: ${error.message}`);
  }
  let fields;
  try {
    fields = JSON.parse(text);
  } catch (error) {
    throw invalid(`manifest.json is not JSON (${place(text, error.message)}): ${error.message}`);
  }
  return check(fields);
}

/** Turns the offset in V8's message into a line and a column. */
function place(text, message) {
  const found = /position (\d+)/.exec(message);
  const before = found ? text.slice(0, Number(found[1])) : text.trimEnd();
  const lines = before.split('\n');
  return `line ${lines.length}, column ${lines[lines.length - 1].length + 1}`;
}

function check(fields) {
  if (typeof fields !== 'object' || fields === null || Array.isArray(fields)) {
    throw invalid('manifest.json: expected an object');
  }
  const { commands = {}, runTask = null, timeout = null, concurrency = null } = fields;
  if (typeof commands !== 'object' || commands === null || Array.isArray(commands)) {
    throw invalid('manifest.json: commands: expected an object of shell commands');
  }
  for (const [name, command] of Object.entries(commands)) {
    if (!isCommandName(name)) throw invalid(`manifest.json: commands: ${JSON.stringify(name)} is not a command's name`);
    if (typeof command !== 'string') throw invalid(`manifest.json: commands.${name}: expected a string`);
  }
  if (runTask !== null && typeof runTask !== 'string') throw invalid('manifest.json: runTask: expected a string');
  if (timeout !== null && !(typeof timeout === 'number' && timeout > 0)) throw invalid('manifest.json: timeout: expected a number of seconds');
  if (concurrency !== null && !(Number.isInteger(concurrency) && concurrency > 0)) {
    throw invalid('manifest.json: concurrency: expected a whole number above 0');
  }
  return { commands, runTask, timeoutMs: timeout === null ? null : timeout * 1000, concurrency };
}

module.exports = { readManifest };
