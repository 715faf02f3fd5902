'use strict';
/**
 * Runs shell handlers: manifest `commands`, `handlers/*.sh`, executables, `runTask`.
 *
 * One process group per task: cancelling ends all that a script has started.
 */

const fs = require('fs');
const { spawn } = require('child_process');
const { failure, isFailure } = require('./tasks');

const KILL_AFTER_MS = 2000;
// What a script left in the background may hold its stdout open; this long is
// waited for the rest of it.
const DRAIN_MS = 200;
const TAIL_BYTES = 4096;

class ScriptRunner {
  constructor({ agentDir, maxResultBytes }) {
    this._agentDir = agentDir;
    this._maxResultBytes = maxResultBytes;
    this._env = { ...process.env };
    this._ending = new Set();
  }

  /** Runs a task; see Executor. */
  run(task, target, done) {
    let words;
    try {
      words = argumentsOf(task, target);
    } catch (error) {
      if (!isFailure(error)) throw error;
      done(undefined, error);
      return undefined;
    }
    if (words.some((word) => word.includes('\0'))) {
      done(undefined, withNul(task));
      return undefined;
    }
    let child;
    try {
      child = spawn('/bin/sh', words, {
        cwd: this._agentDir,
        env: { ...this._env, TASK_COMMAND: task.command },
        detached: true,
      });
    } catch (error) {
      done(undefined, notStarted(task, error));
      return undefined;
    }
    this._follow(child, task, done);
    child.stdin.on('error', () => {}); // a script need not read its task
    child.stdin.end(describe(task));
    return () => this._end(child);
  }

  /** Kills at once what is still being ended. */
  stop() {
    for (const child of this._ending) signal(child, 'SIGKILL');
  }

  _follow(child, task, done) {
    const out = [];
    let size = 0;
    let tail = Buffer.alloc(0);
    let drained;
    let finished = false;
    const finish = (code, name) => {
      if (finished) return;
      finished = true;
      clearTimeout(drained);
      child.stdout.destroy();
      child.stderr.destroy();
      if (size > this._maxResultBytes) done(undefined, tooLarge(task, this._maxResultBytes));
      else if (code !== 0) done(undefined, exited(task, code, name, tail));
      else done(resultOf(Buffer.concat(out, size)));
    };
    child.stdout.on('data', (chunk) => {
      size += chunk.length;
      if (size > this._maxResultBytes) signal(child, 'SIGKILL');
      else out.push(chunk);
    });
    child.stderr.on('data', (chunk) => {
      process.stderr.write(chunk);
      tail = Buffer.concat([tail, chunk]).slice(-TAIL_BYTES);
    });
    child.on('error', (error) => {
      finished = true;
      done(undefined, notStarted(task, error));
    });
    child.on('exit', (code, name) => {
      drained = setTimeout(() => finish(code, name), DRAIN_MS);
    });
    child.on('close', finish);
  }

  _end(child) {
    if (child.pid === undefined) return;
    signal(child, 'SIGTERM');
    this._ending.add(child);
    setTimeout(() => {
      signal(child, 'SIGKILL');
      this._ending.delete(child);
    }, KILL_AFTER_MS);
  }
}

function argumentsOf(task, target) {
  const params = task.params.map((param) => (typeof param === 'string' ? param : JSON.stringify(param)));
  if (target.kind !== 'script') return ['-c', `${target.command} "$@"`, task.command, ...params];
  try {
    fs.accessSync(target.file, fs.constants.X_OK);
  } catch (error) {
    return [target.file, ...params];
  }
  return ['-c', 'exec "$0" "$@"', target.file, ...params]; // its #! line decides
}

/** The task as a script reads it on stdin. */
function describe({ id, command, params, user, requestId, deadline }) {
  return `${JSON.stringify({ id, command, params, user, requestId, deadline })}\n`;
}

function signal(child, name) {
  try {
    process.kill(-child.pid, name);
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

/** The result's JSON text: what was printed where it is JSON, else as a string. */
function resultOf(bytes) {
  const text = bytes.toString('utf8');
  try {
    JSON.parse(text);
    return text.trim();
  } catch (error) {
    return JSON.stringify(text.replace(/\n+$/, ''));
  }
}

function withNul(task) {
  return failure(400, 'BAD_REQUEST', `A parameter of ${task.command} has a NUL character, which a command line cannot carry.`);
}

function notStarted(task, error) {
  if (error.code === 'E2BIG') {
    return failure(413, 'BODY_TOO_LARGE', `The parameters of ${task.command} are too long for a command line.`);
  }
  return failure(500, 'HANDLER_FAILED', `${task.command} could not be started: ${error.message}`);
}

function exited(task, code, name, tail) {
  const stderr = tail.toString('utf8').trim();
  const how = name ? `was killed by ${name}` : `ended with exit status ${code}`;
  const last = stderr.split('\n').pop();
  const details = name ? { signal: name, stderr } : { exitStatus: code, stderr };
  return failure(500, 'HANDLER_FAILED', `${task.command} ${how}${last ? `: ${last}` : ''}`, details);
}

function tooLarge(task, limit) {
  return failure(
    500,
    'HANDLER_FAILED',
    `${task.command} printed more than ${limit} bytes, the most that is taken. Print less, in pages, or raise PLOINKY_MAX_RESULT_BYTES.`
  );
}

module.exports = { ScriptRunner };
