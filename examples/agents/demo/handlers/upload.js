// Tells the size and SHA-256 of a file that was uploaded: curl -F file=@photo.jpg http://localhost:8000/demo/upload
const crypto = require('crypto');
const fs = require('fs');
const { pipeline } = require('stream/promises');

module.exports = async ([upload]) => {
  const hash = crypto.createHash('sha256');
  await pipeline(fs.createReadStream(upload.path), hash); // the file is gone when this task is over
  return { name: upload.name, size: upload.size, sha256: hash.digest('hex'), metadata: upload.metadata };
};
