'use strict';
// Kills the engine after its n-th call for the files of one task; see test_killed.py.
// From the lock of that task on, every call in the queue counts.  There is no rescan,
// so that the calls are the same ones every time.

const fs = require('fs');
const { isMainThread } = require('worker_threads');

const { FAULT_AFTER, FAULT_LOG, FAULT_TASK, PLOINKY_QUEUE } = process.env;
const CALLS = [
  'linkSync', 'openSync', 'readSync', 'writeSync', 'writeFileSync', 'ftruncateSync', 'closeSync',
  'renameSync', 'unlinkSync', 'rmdirSync',
];

if (isMainThread && FAULT_TASK) {
  const real = { ...fs };
  const log = real.openSync(FAULT_LOG, 'a');
  const ours = new Set();
  let calls = -1;
  global.setInterval = () => {};
  for (const name of CALLS) {
    fs[name] = (...given) => {
      const isOurs = ours.has(given[0]) || String(given[0]).startsWith(PLOINKY_QUEUE);
      const result = real[name](...given);
      if (name === 'openSync' && isOurs) ours.add(result);
      if (name === 'closeSync') ours.delete(given[0]);
      if (name === 'linkSync' && given[1].endsWith(`/locks/${FAULT_TASK}`)) calls = 0;
      if (isOurs && calls >= 0) {
        calls += 1;
        real.writeSync(log, `${name.replace('Sync', '')}\n`);
        if (calls === Number(FAULT_AFTER)) process.kill(process.pid, 'SIGKILL');
      }
      return result;
    };
  }
}
