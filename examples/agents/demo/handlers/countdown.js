// Counts down, one number a second; each leaves as it comes.
const { setTimeout: later } = require('timers/promises');

module.exports = async function* ([from = 3, seconds = 1], { signal }) {
  for (let left = from; left >= 0; left--) {
    yield { left };
    if (left) await later(seconds * 1000, undefined, { signal });
  }
};
