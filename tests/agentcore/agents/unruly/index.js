'use strict';
const { parentPort } = require('worker_threads');

const unreadable = () => {
  throw new Error('nobody may look');
};
const later = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

module.exports = {
  give: ([value]) => value,
  unreadableStatus: () => {
    throw Object.defineProperty(new Error('x'), 'status', { get: unreadable });
  },
  unreadableMessage: () => {
    throw { message: Object.create(null) };
  },
  unreadableLater: async () => {
    throw new Proxy({}, { get: unreadable });
  },
  unreadableStack: () => {
    throw { message: 'with an odd stack', stack: 1n };
  },
  unreadableResult: () => ({
    toJSON() {
      throw 'not today';
    },
  }),
  log: (params, { log }) => {
    const itself = { name: 'itself' };
    itself.itself = itself;
    log.info('odd fields', { large: 2n ** 64n, itself });
    return 'logged';
  },
  patched: () => {
    const { parse, stringify } = JSON;
    JSON.parse = JSON.stringify = unreadable;
    setTimeout(() => Object.assign(JSON, { parse, stringify }), 50);
    return 'patched';
  },
  endless: () => ({ next: () => 5 }),
  speaks: async () => {
    for (const message of [null, 'junk', [[1, 5]], { loaded: 1 }]) parentPort.postMessage(message);
    parentPort.close();
    await later(20);
    return 'spoke';
  },
};
