'use strict';
const fs = require('fs');

let calls = 0;
const later = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const functions = {
  first: () => 'function',
  second: () => 'function',
  third: () => 'function',
  fourth: () => 'function',
  fifth: () => 'function',
  give: ([value]) => value,
  giveLater: async ([value]) => (await later(5), value),
  nothing: () => undefined,
  count: () => ++calls,
  context: (params, { taskId, command, user, requestId, deadline, signal }) => ({
    params, taskId, command, user, requestId, deadline, aborted: signal.aborted,
  }),
  log: ([text], { log }) => log.info(text, { extra: 1 }),
  raise: () => {
    throw new TypeError('it is broken');
  },
  refuse: async () => {
    throw Object.assign(new Error('Not so fast.'), { status: 429, code: 'SLOW_DOWN', details: { seconds: 3 } });
  },
  strange: () => {
    throw Object.assign(new Error('odd'), { status: 200, code: 7, details: () => 1 });
  },
  unserialisable: () => ({ big: 1n }),
  counted: function* ([number]) {
    for (let i = 0; i < number; i++) yield { i };
  },
  countedLater: async function* ([number, ms]) {
    for (let i = 0; i < number; i++) {
      await later(ms);
      yield { i };
    }
  },
  halfway: async function* ([ms]) {
    yield 1;
    await later(ms);
    throw Object.assign(new Error('half of it'), { status: 409, code: 'HALF' });
  },
  atOnce: async function* () {
    throw Object.assign(new Error('none of it'), { status: 409, code: 'NONE' });
  },
  strangely: async function* () {
    yield 1;
    yield { big: 1n };
  },
  wide: async function* ([file, number, size]) {
    let made = 0;
    try {
      for (; made < number; made++) yield 'x'.repeat(size);
    } finally {
      fs.writeFileSync(`${file}.made`, String(made));
    }
  },
  ticking: async function* ([file], { signal }) {
    signal.addEventListener('abort', () => fs.writeFileSync(`${file}.told`, ''));
    try {
      for (let i = 0; ; i++) {
        yield i;
        await later(10);
      }
    } finally {
      fs.writeFileSync(`${file}.ended`, '');
    }
  },
  large: ([size]) => 'x'.repeat(size),
  begin: async ([file], { signal }) => {
    signal.addEventListener('abort', () => {
      try {
        signal.throwIfAborted();
      } catch ({ name }) {
        fs.writeFileSync(`${file}.told`, name);
      }
    });
    fs.writeFileSync(`${file}.begun`, '');
    await later(60000);
  },
  read: ([file]) => {
    fs.writeFileSync(`${file}.begun`, '');
    return fs.readFileSync(file, 'utf8');
  },
  spin: ([file]) => {
    fs.writeFileSync(`${file}.begun`, '');
    while (true);
  },
  exit: () => process.exit(3),
  exitLater: async () => {
    await later(20);
    process.exit(3);
  },
  escape: async () => {
    setTimeout(() => {
      throw new Error('thrown in a timer');
    }, 5);
    await later(60000);
  },
  Unlisted: class Unlisted {},
  secret: 'not a function',
};
functions.fifth.about = 'The fifth.';
module.exports = functions;
