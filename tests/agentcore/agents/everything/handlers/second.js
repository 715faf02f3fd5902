module.exports = () => 'handler';
