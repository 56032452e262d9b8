"""Stand-in for the `nvidia` OCI runtime of old installations: adds the hook to a container, then is runc.

On a host where it is the default runtime, every image decides by its environment which GPUs it gets. A
program of its own, like the hook; `USANCE_RIG_HOOK` is the hook's path.
"""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    arguments = sys.argv[1:]
    if "create" in arguments:
        config = Path(arguments[arguments.index("--bundle") + 1]) / "config.json"
        spec = json.loads(config.read_text())
        hooks = spec.setdefault("hooks", {}).setdefault("prestart", [])
        hook = os.environ["USANCE_RIG_HOOK"]
        if all(each["path"] != hook for each in hooks):
            hooks.append({"path": hook, "args": [hook, "prestart"]})
            config.write_text(json.dumps(spec))
    os.execvp("runc", ["runc", *arguments])


if __name__ == "__main__":
    main()
