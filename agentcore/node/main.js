'use strict';
/**
 * The Node engine: where its parts meet.
 *
 * The environment enters; the process serves the agent until SIGTERM.  Exit
 * status 0 after a graceful stop, 1 where the agent cannot be served.
 */

const fs = require('fs');
const v8 = require('v8');
const { Catalogue } = require('./catalogue');
const { Executor } = require('./executor');
const { FileWire, prepareQueue, publish, removeIfThere } = require('./queue');
const { FrameWire } = require('./frame_wire');
const { HandlerThread } = require('./thread');
const { HttpWire } = require('./http');
const { Listener } = require('./listener');
const { ScriptRunner } = require('./script');
const { failure, isFailure } = require('./tasks');
const { readManifest } = require('./manifest');

// Where many objects from one place outlived a collection or two, V8 makes the next ones there old
// from birth: once dead, they keep the young ones that they name until the whole heap is collected.
// A moment's pause would so make pauses of 10 ms out of those of 0.5 for good; see table.js, too.
v8.setFlagsFromString('--no-allocation-site-pretenuring');

const DEFAULT_TIMEOUT_MS = 30000;
const DEFAULT_CONCURRENCY = 64;
const DEFAULT_MAX_RESULT_BYTES = 16 * 1024 * 1024;
const STOP_AFTER_MS = 5000;
// Where files bring durable tasks alone, and inotify has no room for one more agent.
const RARE_POLL_MS = 1000;

function readSettings(env) {
  const whole = (name, fallback) => {
    if (!env[name]) return fallback;
    if (!/^[1-9]\d{0,14}$/.test(env[name])) {
      throw failure(500, 'AGENT_BROKEN', `${name}=${env[name]}: expected a whole number above 0`);
    }
    return Number(env[name]);
  };
  return {
    agentDir: env.AGENT_DIR,
    queue: env.PLOINKY_QUEUE,
    filesFirst: env.PLOINKY_TRANSPORT === 'file',
    offersFrames: env.PLOINKY_FRAMES !== 'off',
    port: whole('PORT', undefined),
    concurrency: whole('PLOINKY_CONCURRENCY', undefined),
    maxResultBytes: whole('PLOINKY_MAX_RESULT_BYTES', DEFAULT_MAX_RESULT_BYTES),
  };
}

async function serve(settings) {
  const { agentDir, queue } = settings;
  prepareQueue(queue);
  const manifest = readManifest(agentDir);
  const limits = {
    concurrency: settings.concurrency || manifest.concurrency || DEFAULT_CONCURRENCY,
    timeoutMs: manifest.timeoutMs || DEFAULT_TIMEOUT_MS,
    maxResultBytes: settings.maxResultBytes,
  };
  const thread = new HandlerThread(settings);
  const scripts = new ScriptRunner(settings);
  const catalogue = new Catalogue(agentDir, manifest, await thread.start());
  const executor = new Executor(catalogue, { thread, scripts }, limits);
  const frames = new FrameWire(executor);
  const listener = new Listener({ http: new HttpWire(executor, catalogue), frames });
  await listen(listener, settings);
  // After the listener: the server tells by the new socket that earlier locks are a dead engine's.
  const files = new FileWire(queue, executor, { ...limits, pollMs: settings.filesFirst ? undefined : RARE_POLL_MS });
  files.start();
  const wires = [listener, frames, files];
  const stop = () => stopOnce({ queue, executor, wires, thread, scripts });
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  const transports = settings.offersFrames ? ['http', 'frames', 'file'] : ['http', 'file'];
  const ready = { engine: 'node', version: process.versions.node, transports, pid: process.pid };
  // Last: whoever waits for it may tell the engine to stop at once.
  publish(queue, 'ready', JSON.stringify(ready));
}

async function listen(listener, { queue, port }) {
  const socket = `${queue}/agent.sock`;
  try {
    removeIfThere(socket);
    await listener.listen({ path: socketPath(queue) });
  } catch (error) {
    if (port === undefined) throw failure(500, 'QUEUE_UNUSABLE', `${socket} cannot be listened on: ${error.message}`);
    console.error(`${socket} cannot be listened on (${error.message}); port ${port} alone is.`);
  }
  if (port !== undefined) await listener.listen({ host: '0.0.0.0', port });
}

/** Gives a name for the socket that fits the kernel's 107 bytes: through a descriptor where the queue lies deep. */
function socketPath(queue) {
  const path = `${queue}/agent.sock`;
  if (Buffer.byteLength(path) <= 107) return path;
  return `/proc/self/fd/${fs.openSync(queue, fs.constants.O_DIRECTORY)}/agent.sock`;
}

let stopping = false;

/** Takes no more, finishes what is in flight, ends; a second signal ends at once. */
async function stopOnce({ queue, executor, wires, thread, scripts }) {
  if (stopping) process.exit(0);
  stopping = true;
  executor.draining = true;
  fs.unlink(`${queue}/ready`, () => {});
  wires.forEach((wire) => wire.stop());
  const timer = setTimeout(() => executor.abandon(), STOP_AFTER_MS);
  await executor.whenIdle();
  clearTimeout(timer);
  thread.stop();
  scripts.stop();
  // Answers that were just written leave with the next turn of the loop.
  setTimeout(() => process.exit(0), 20);
}

/** Says why the agent cannot be served, to the server and on stderr, and ends. */
function fail(queue, error) {
  const { code, message } = isFailure(error) ? error : failure(500, 'AGENT_BROKEN', error.stack || String(error));
  console.error(`${code}: ${message}`);
  try {
    prepareQueue(queue);
    publish(queue, 'failed', JSON.stringify({ code, message }));
  } catch (unwritable) {
    console.error(`${queue}/failed cannot be written: ${unwritable.message}`);
  }
  process.exit(1);
}

(async () => serve(readSettings(process.env)))().catch((error) => fail(process.env.PLOINKY_QUEUE, error));
