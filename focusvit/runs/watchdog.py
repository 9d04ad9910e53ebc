"""A side process of a training's driver: when the driver dies without closing its run, mark the run KILLED.

Started as `python -m focusvit.runs.watchdog RUN_ID`. The driver holds the other end of stdin: the first line is the
URI of the tracking store, then "done" means a proper end, end-of-file without it means that the driver is gone.
"""

import sys
import time


def main(run_id: str) -> None:
    uri = sys.stdin.readline().strip()
    if sys.stdin.readline().strip() == "done":
        return
    from .store import open_client

    for delay_s in (0, 2, 10, 60, 300):  # the server may be down in the same moment
        time.sleep(delay_s)
        try:
            client = open_client(uri)
            if client.get_run(run_id).info.status == "RUNNING":
                client.set_tag(run_id, "focusvit.end", "the driver process died; run the same command again to go on")
                client.set_terminated(run_id, status="KILLED")
            return
        except Exception:
            continue


if __name__ == "__main__":
    main(*sys.argv[1:])
