'use strict';
// Tells the engine to stop in the moment in which it says that it is ready.

const fs = require('fs');

const { renameSync } = fs;
fs.renameSync = (from, to) => {
  renameSync(from, to);
  if (to.endsWith('/ready')) process.kill(process.pid, 'SIGTERM');
};
