// Greets whoever is named.
module.exports = ([name]) => ({ message: `Hello ${name}` });
