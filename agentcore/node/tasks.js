'use strict';
/**
 * What a task is on the wire: the strict reading of `{command, params}`, and
 * the form of what can go wrong with one.
 *
 * Raw bytes enter, values leave.  Knows nothing of HTTP, files or handlers.
 */

const { parse } = JSON; // whatever handlers make of that
const NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/;
const MAX_NAME_LENGTH = 200;

/** The way a task fails: `{status, code, message, details?}`, never an Error. */
function failure(status, code, message, details) {
  const value = { status, code, message };
  if (details !== undefined) value.details = details;
  return value;
}

function isFailure(value) {
  return typeof value === 'object' && value !== null && typeof value.status === 'number';
}

function isCommandName(name) {
  return typeof name === 'string' && name.length <= MAX_NAME_LENGTH && NAME.test(name);
}

/** Decodes UTF-8 strictly: Node itself would replace what is not UTF-8. */
function decode(bytes) {
  const text = bytes.toString('utf8');
  if (text.includes('\ufffd') && !Buffer.from(text, 'utf8').equals(bytes)) {
    throw failure(400, 'BAD_JSON', 'The task is not UTF-8.');
  }
  return text;
}

/**
 * Reads a task's JSON.
 *
 * @param {Buffer} bytes The body of `POST /task`, or a task file.
 * @returns {{text: string, fields: object, command: string, params: Array}}
 * @throws a failure with BAD_JSON or BAD_COMMAND.
 */
function readTask(bytes) {
  const text = decode(bytes);
  let fields;
  try {
    fields = parse(text);
  } catch (error) {
    throw failure(400, 'BAD_JSON', `The task is not JSON: ${error.message}.`);
  }
  if (typeof fields !== 'object' || fields === null || Array.isArray(fields)) {
    throw failure(400, 'BAD_JSON', 'A task is a JSON object: {"command": "name", "params": [...]}.');
  }
  const { command, params = [] } = fields;
  if (!isCommandName(command)) throw badCommand(command);
  if (!Array.isArray(params)) {
    throw failure(400, 'BAD_JSON', '"params" is a list: {"command": "name", "params": [...]}.');
  }
  return { text, fields, command, params };
}

/**
 * Reads the params out of a task's JSON, or of the JSON of its params alone.
 *
 * @throws a failure with BAD_JSON.
 */
function paramsOf(text) {
  let value;
  try {
    value = parse(text);
  } catch (error) {
    throw failure(400, 'BAD_JSON', `The params are not JSON: ${error.message}.`);
  }
  const params = Array.isArray(value) ? value : value !== null && typeof value === 'object' ? value.params || [] : value;
  if (!Array.isArray(params)) throw failure(400, 'BAD_JSON', '"params" is a list: {"command": "name", "params": [...]}.');
  return params;
}

function badCommand(command) {
  if (command === undefined) return failure(400, 'BAD_COMMAND', 'The task names no "command".');
  const shown = JSON.stringify(command).slice(0, 100);
  return failure(
    400,
    'BAD_COMMAND',
    `${shown} is not a command's name: it takes letters, digits, "_", "." and "-", and starts with a letter, digit or "_".`
  );
}

/** A field's text: the server percent-encodes whatever a field or line cannot hold. */
function decoded(text) {
  if (!text || !text.includes('%')) return text;
  try {
    return decodeURIComponent(text);
  } catch (_) {
    return text; // from somebody else, who does not encode
  }
}

module.exports = { badCommand, decoded, failure, isFailure, isCommandName, paramsOf, readTask };
