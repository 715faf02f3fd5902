'use strict';
// Runs the Node engine's codec over test vectors: frames in, what they say out, and the reverse.
// stdin: {"preface", "from_server": [hex], "write": [{type, id, payload?, status?, begin?}]}

const frames = require('../../agentcore/node/frames');

const given = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const read = [];
const take = (type, id, bytes, start, end) => {
  const found = { type, id };
  if (type === frames.OPEN) found.open = frames.readOpen(bytes, start, end);
  if (type === frames.CREDIT) found.credit = bytes.readUInt32BE(start);
  read.push(found);
};
const stream = Buffer.concat([Buffer.from(given.preface), ...given.from_server.map((hex) => Buffer.from(hex, 'hex'))]);
new frames.FrameReader().feed(stream, take);
const slow = new frames.FrameReader();
for (const byte of stream) slow.feed(Buffer.from([byte]), take);

const writer = new frames.FrameWriter();
writer.add(frames.HELLO, 0, frames.helloPayload());
for (const { type, id, payload, status, begin } of given.write) {
  writer.add(frames[type], id, begin ? frames.beginPayload(...begin) : payload, status);
}
console.log(JSON.stringify({ read, written: writer.take().toString('hex') }));
