// Loaded into an emulator before its own code.

// Whatever address it asks for, it listens on the loopback alone.
const { Server } = require('net');
const listen = Server.prototype.listen;
Server.prototype.listen = function (...args) {
  if (typeof args[0] === 'object' && args[0] !== null) {
    args[0] = { ...args[0], host: '127.0.0.1' };
  } else if (typeof args[1] === 'string') {
    args[1] = '127.0.0.1';
  } else {
    args.splice(1, 0, '127.0.0.1');
  }
  return listen.apply(this, args);
};

// It ends with the process that started it, however that one ends: its input is then closed.
process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();
