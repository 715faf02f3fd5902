"""The Python engine's door: `python3 <this directory>`.

With `worker <descriptor>` it is the process that runs the handlers.
"""

from __future__ import annotations

import sys

if sys.argv[1:2] == ["worker"]:
    from agentcore.worker import main as run_worker

    run_worker(int(sys.argv[2]))
else:
    from agentcore.main import main

    main()
