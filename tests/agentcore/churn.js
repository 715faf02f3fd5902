'use strict';
// Lets 50,000 entries of 1 KiB come into a table and go, 32 at a time; prints by how many bytes the
// heap has grown, with no collection of all of it.  With the argument `Map`: for one of those.

const { Table } = require('../../agentcore/node/table');

const table = process.argv[2] === 'Map' ? new Map() : new Table();
const collectYoung = () => gc({ type: 'minor' });
let count = 0;

function churn(times) {
  for (const end = count + times; count < end; count += 1) {
    table.set(count, new Array(128).fill(count));
    table.delete(count - 32);
  }
}

churn(1000);
gc(); // what stands in the table now is old
const before = process.memoryUsage().heapUsed;
for (let turn = 0; turn < 100; turn += 1) {
  churn(500);
  collectYoung();
}
console.log(JSON.stringify({ grown: process.memoryUsage().heapUsed - before, size: table.size }));
