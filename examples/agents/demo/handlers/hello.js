// Greets whoever is named.
module.exports = ([name = 'World']) => ({ message: `Hello ${name}` });
