'use strict';
/**
 * The thread in which in-process handlers run.
 *
 * Batches of `[sequence, file, name, command, text, id, user, requestId, deadline]`
 * (run), `[sequence, reason]` (abort) and `[sequence, units]` (so much of its items was
 * taken) enter; batches of `[sequence, text]`, `[sequence, undefined, failure]`,
 * `[sequence, text, ITEM]`, `[sequence, undefined]` (after the last item) and `[sequence]`
 * (abort seen) leave.  `text` is JSON both ways: strings cross between threads faster than
 * objects.
 */

const fs = require('fs');
const path = require('path');
const { AsyncLocalStorage } = require('async_hooks');
const { pathToFileURL } = require('url');
const { parentPort, workerData } = require('worker_threads');
const { Context } = require('./context');
const { ITEM, Streaming, isStream } = require('./streaming');
const { Table } = require('./table');
const { failure, isCommandName, paramsOf } = require('./tasks');

const { agentDir, maxResultBytes, progress } = workerData;
const { parse, stringify } = JSON; // whatever handlers make of that
const current = new AsyncLocalStorage();
const loaded = new Map();
const contexts = new Table();
const streams = new Table();
let functions = new Map();
let outbox = [];
let port; // not `parentPort`, which is for handlers to use or close

function flush() {
  const batch = outbox;
  outbox = [];
  if (batch.length) port.postMessage(batch);
}

function tell(message) {
  if (outbox.push(message) === 1) setImmediate(flush);
}

function answer(sequence, text, failed) {
  if (!contexts.delete(sequence)) return;
  streams.delete(sequence);
  tell(failed ? [sequence, undefined, failed] : [sequence, text]);
}

// --- loading ------------------------------------------------------------------

/** Loads a module, CommonJS or not; gives a promise only where it must. */
function load(file) {
  if (file.endsWith('.mjs')) return import(pathToFileURL(file).href);
  try {
    return require(file);
  } catch (error) {
    if (error && error.code === 'ERR_REQUIRE_ESM') return import(pathToFileURL(file).href);
    throw error;
  }
}

function isThenable(value) {
  return value !== null && typeof value === 'object' && typeof value.then === 'function';
}

function handlerOf(file, module) {
  const handler = typeof module === 'function' ? module : module && module.default;
  if (typeof handler !== 'function') {
    throw new Error(`${path.relative(agentDir, file)} does not export a function (params, context) => result.`);
  }
  loaded.set(file, handler);
  return handler;
}

/** Gives the function to call, or a promise of it while its module loads. */
function resolve(file, name) {
  if (file === undefined) return functions.get(name);
  if (loaded.has(file)) return loaded.get(file);
  const module = load(file);
  return isThenable(module) ? module.then((ready) => handlerOf(file, ready)) : handlerOf(file, module);
}

function exportedFunctions(module) {
  const found = new Map();
  for (const source of [module, module.default]) {
    if (source === null || (typeof source !== 'object' && typeof source !== 'function')) continue;
    for (const [name, value] of Object.entries(source)) {
      const isClass = typeof value === 'function' && /^class\b/.test(Function.prototype.toString.call(value));
      if (typeof value === 'function' && !isClass && name !== 'default' && isCommandName(name)) found.set(name, value);
    }
  }
  return found;
}

async function loadIndex() {
  const file = ['index.js', 'index.mjs'].map((name) => path.join(agentDir, name)).find((name) => fs.existsSync(name));
  if (!file) return;
  try {
    const module = await load(file);
    functions = module ? exportedFunctions(module) : functions;
  } catch (error) {
    throw new Error(`${path.basename(file)} cannot be loaded: ${(error && error.stack) || error}`);
  }
}

// --- running ------------------------------------------------------------------

function run([sequence, file, name, command, text, id, user, requestId, deadline]) {
  const context = new Context(id, command, user, requestId, deadline);
  contexts.set(sequence, context);
  current.run(sequence, call, sequence, context, file, name, text);
}

function call(sequence, context, file, name, text) {
  Atomics.store(progress, 0, sequence);
  Atomics.store(progress, 1, sequence);
  try {
    const params = paramsOf(text);
    const handler = resolve(file, name);
    const result = isThenable(handler) ? handler.then((ready) => ready(params, context)) : handler(params, context);
    if (isThenable(result)) result.then((value) => succeed(sequence, value), (error) => fail(sequence, error));
    else succeed(sequence, result);
  } catch (error) {
    fail(sequence, error);
  } finally {
    Atomics.store(progress, 0, 0);
  }
}

function succeed(sequence, result) {
  const context = contexts.get(sequence);
  if (!context) return;
  try {
    if (isStream(result)) stream(sequence, context, result);
    else answer(sequence, jsonOf(result, context.command));
  } catch (error) {
    fail(sequence, error);
  }
}

/**
 * Gives the JSON of a result or an item.
 *
 * @throws a failure where it has none, or is too large.
 */
function jsonOf(result, command) {
  let text;
  try {
    text = result === undefined ? 'null' : stringify(result);
  } catch (error) {
    const [reason] = failureOf(error, command).message.split('\n');
    throw unserialisable(command, result, `: ${reason}`);
  }
  if (text === undefined) throw unserialisable(command, result, '.');
  // A string has at most three bytes of UTF-8 per unit: most need no counting.
  const size = text.length * 3 > maxResultBytes ? Buffer.byteLength(text) : 0;
  if (size > maxResultBytes) throw tooLarge(command, size);
  return text;
}

function stream(sequence, context, result) {
  const streaming = new Streaming(result, {
    json: (item) => jsonOf(item, context.command),
    item: (text) => contexts.has(sequence) && tell([sequence, text, ITEM]),
    enter: () => Atomics.store(progress, 0, sequence),
    leave: () => Atomics.store(progress, 0, 0),
  });
  streams.set(sequence, streaming);
  streaming.run().then(() => answer(sequence), (error) => fail(sequence, error));
}

function unserialisable(command, result, reason) {
  const type = (result !== null && typeof result === 'object' && result.constructor && result.constructor.name) || typeof result;
  return failure(500, 'HANDLER_FAILED', `${command} returned a ${type}, which cannot be written as JSON${reason}`);
}

function tooLarge(command, size) {
  return failure(
    500,
    'HANDLER_FAILED',
    `${command} returned ${size} bytes of JSON; at most ${maxResultBytes} are taken. Return less, in pages, or raise PLOINKY_MAX_RESULT_BYTES.`
  );
}

function fail(sequence, thrown) {
  const context = contexts.get(sequence);
  if (!context) return;
  const streaming = streams.get(sequence);
  if (streaming) streaming.stop();
  const failed = failureOf(thrown, context.command);
  if (failed.status >= 500) context.log.error(failed.message, { stack: stackOf(thrown) });
  answer(sequence, undefined, failed);
}

/** Turns what a handler threw into a failure, with what the error says of itself. */
function failureOf(thrown, command) {
  const error = thrown !== null && typeof thrown === 'object' ? thrown : { message: String(thrown) };
  try {
    const status = Number.isInteger(error.status) && error.status >= 400 && error.status <= 599 ? error.status : 500;
    const code = typeof error.code === 'string' && error.code ? error.code : 'HANDLER_FAILED';
    const message = error.message ? String(error.message) : `${command} failed: ${error.name || 'it threw an empty value'}`;
    return failure(status, code, message, jsonOrNothing(error.details));
  } catch (_) {
    return failure(500, 'HANDLER_FAILED', `${command} failed with an error that cannot be read.`); // its getters throw
  }
}

function stackOf(thrown) {
  try {
    return typeof thrown.stack === 'string' ? thrown.stack : undefined;
  } catch (_) {
    return undefined;
  }
}

function jsonOrNothing(value) {
  try {
    return value === undefined ? undefined : parse(stringify(value));
  } catch (error) {
    return undefined;
  }
}

function abort(sequence, reason) {
  const context = contexts.get(sequence);
  if (!context) return;
  contexts.delete(sequence);
  tell([sequence]);
  context.abort(reason);
  const streaming = streams.get(sequence);
  streams.delete(sequence);
  if (streaming) streaming.stop();
}

function taken(sequence, units) {
  const streaming = streams.get(sequence);
  if (streaming) streaming.taken(units);
}

// --- what ends, or would end, the thread ---------------------------------------

/** Fails the task that let an error escape; the others go on. */
function escaped(error) {
  const sequence = current.getStore();
  if (contexts.has(sequence)) fail(sequence, error);
  else console.error('An error escaped a handler:', error);
}

function watchExits() {
  const exit = process.exit;
  process.exit = function (code) {
    const sequence = current.getStore() || 0;
    flush();
    port.postMessage({ ending: `called process.exit(${code === undefined ? '' : code})`, sequence });
    exit.call(process, code);
  };
  process.on('uncaughtException', escaped);
  process.on('unhandledRejection', escaped);
}

function take(batch) {
  for (const message of batch) {
    const [sequence, what] = message;
    if (message.length > 2) run(message);
    else if (typeof what === 'number') taken(sequence, what);
    else abort(sequence, what);
  }
}

async function serve(given) {
  port = given;
  try {
    await loadIndex();
  } catch (error) {
    port.postMessage({ broken: error.message });
    process.exit(1);
  }
  watchExits();
  const list = [...functions].map(([name, value]) => ({ name, about: typeof value.about === 'string' ? value.about : undefined }));
  port.postMessage({ loaded: list });
  port.on('message', take);
}

parentPort.once('message', serve);
