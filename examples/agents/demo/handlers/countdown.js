// Counts down, one number a second; each leaves as it comes.
module.exports = async function* ([from = 3, seconds = 1], { signal }) {
  for (let left = from; left >= 0; left--) {
    yield { left };
    if (left) await later(seconds * 1000, signal);
  }
};

// As `setTimeout` of timers/promises, which Node 14 does not have.
function later(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new Error('stopped'));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop);
      resolve();
    }, milliseconds);
    signal.addEventListener('abort', stop, { once: true });
  });
}
