module.exports = { handle: 1 };
