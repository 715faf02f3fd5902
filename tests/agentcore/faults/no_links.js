'use strict';
// A file system on which a file has one name alone, as some that containers mount.

require('fs').linkSync = () => {
  throw Object.assign(new Error('operation not permitted'), { code: 'EPERM' });
};
