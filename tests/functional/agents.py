"""Agent repositories that the functional tests deploy: the same behaviour in five ways.

Every one answers `hello NAME` with `{"message": "Hello NAME"}` and fails in the same ways.
"""

from __future__ import annotations

NODE = {
    "manifest.json": '{"container": "node:18-alpine", "engine": "node", "about": "in Node"}',
    "handlers/hello.js": """
module.exports = (params, context) => ({ message: `Hello ${params[0]}` });
""",
    "handlers/who.js": "module.exports = (params, context) => ({ user: context.user });",
    "handlers/throws.js": "module.exports = () => { throw new Error('the disk is on fire'); };",
    "handlers/junk.js": "module.exports = () => { console.log('<<< junk'); return { ok: true }; };",
    "handlers/never.js": "module.exports = () => { while (true) {} };",
    "handlers/exits.js": "module.exports = () => { process.exit(3); };",
    "handlers/count.js": "module.exports = function* ([n]) { for (let i = 0; i < n; i++) yield i; };",
    "index.js": """
const later = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let left = 0;
exports.tick = async function* () {
  try {
    for (let i = 0; ; i++) {
      yield i;
      await later(20);
    }
  } finally {
    left += 1;
  }
};
exports.left = () => left;
exports.halfway = async function* () {
  yield 1;
  await later(50);
  throw new Error('the disk is on fire');
};
""",
    "handlers/huge.js": "module.exports = () => 'x'.repeat(50 * 1024 * 1024);",
}
PYTHON = {
    "manifest.json": '{"container": "python:3.12-alpine", "engine": "python", "about": "in Python"}',
    "handlers/hello.py": """
def handle(params, context):
    return {"message": f"Hello {params[0]}"}
""",
    "handlers/who.py": "def handle(params, context):\n    return {'user': context.user}\n",
    "handlers/throws.py": "def handle(params, context):\n    raise ValueError('the disk is on fire')\n",
    "handlers/junk.py": "def handle(params, context):\n    print('<<< junk')\n    return {'ok': True}\n",
    "handlers/never.py": "def handle(params, context):\n    while True:\n        pass\n",
    "handlers/exits.py": "import os\n\ndef handle(params, context):\n    os._exit(3)\n",
    "handlers/count.py": "def handle(params, context):\n    yield from range(params[0])\n",
    "agent.py": """
import asyncio

ended = 0


async def tick(params, context):
    global ended
    number = 0
    try:
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.02)
    finally:
        ended += 1


def left(params, context):
    return ended


async def halfway(params, context):
    yield 1
    await asyncio.sleep(0.05)
    raise ValueError("the disk is on fire")
""",
    "handlers/huge.py": "def handle(params, context):\n    return 'x' * (50 * 1024 * 1024)\n",
}
SHELL = {
    "manifest.json": '{"container": "busybox", "engine": "sh", "about": "in shell"}',
    "handlers/hello.sh": """#!/bin/sh
printf '{"message": "Hello %s"}' "$1"
""",
    "handlers/throws.sh": "#!/bin/sh\necho 'the disk is on fire' >&2\nexit 1\n",
    "handlers/junk.sh": "#!/bin/sh\necho '<<< junk'\n",
    "handlers/never.sh": "#!/bin/sh\nwhile :; do :; done\n",
    "handlers/exits.sh": "#!/bin/sh\nkill -9 $$\n",
}
COMMANDS = {
    "manifest.json": r"""{
  "container": "node:18-alpine",
  "commands": {
    "hello": "printf '{\"message\": \"Hello %s\"}'",
    "throws": "echo 'the disk is on fire' >&2; exit 1"
  }
}""",
}
RUN_TASK = {
    "manifest.json": '{"container": "node:18-alpine", "runTask": "sh task.sh"}',
    "task.sh": """
case $TASK_COMMAND in
    hello) printf '{"message": "Hello %s"}' "$1" ;;
    *) echo 'the disk is on fire' >&2; exit 1 ;;
esac
""",
}
AGENTS = {
    "node": NODE,
    "python": PYTHON,
    "shell": SHELL,
    "commands": COMMANDS,
    "run-task": RUN_TASK,
}
