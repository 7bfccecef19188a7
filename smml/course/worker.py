"""Execute one notebook in a process of its own: `python -m smml.course.worker SOURCE TARGET PARAMETERS`.

The last line of stdout is JSON: {"error": null} or {"error": "one line", "traceback": "…"}.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError


def main(source: str, target: str, parameters: str) -> int:
    """Execute `source` into `target` (partly written while it runs); 0 when every cell passed."""
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()
    outcome: dict[str, str | None] = {"error": None}
    try:
        papermill.execute_notebook(
            source,
            target,
            parameters=json.loads(parameters),
            kernel_name="python3",
            language="python",
            cwd=str(Path(source).parent),
            progress_bar=False,
        )
    except PapermillExecutionError as error:
        text = " ".join(str(error.evalue).split())
        outcome = {
            "error": f"cell {error.exec_count}: {error.ename}: {text}",
            "traceback": "\n".join(error.traceback),
        }
    except (DeadKernelError, OSError) as error:
        outcome = {"error": f"{type(error).__name__}: {error}", "traceback": ""}
    print(json.dumps(outcome))
    return 0 if outcome["error"] is None else 1


def _die_with_parent(parent: int) -> None:
    """End this process (its kernel follows) when the runner is gone, even by SIGKILL."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
