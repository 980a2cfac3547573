"""What passed and what did not."""

import threading
import traceback


class Report:
    """Counts checks; may be used by several threads at once."""

    def __init__(self):
        self._lock, self._passed, self._failed = threading.Lock(), 0, []

    def check(self, what, holds, why=""):
        """One check. `holds` may be a value, or a function whose exception is the failure; returns whether it held."""
        if callable(holds):
            try:
                holds()
                holds, why = True, ""
            except Exception as error:  # noqa: BLE001: whatever it is, the other checks go on
                last = traceback.extract_tb(error.__traceback__)[-1]
                holds, why = False, f"{error} ({last.filename.rpartition('/')[2]}:{last.lineno})"
        with self._lock:
            if holds:
                self._passed += 1
                print(f"ok      {what}", flush=True)
            else:
                self._failed.append(what)
                print(f"FAILED  {what}" + (f": {why}" if why else ""), flush=True)
        return bool(holds)

    def note(self, what):
        with self._lock:
            print(f"        {what}", flush=True)

    def not_run(self, what, why):
        with self._lock:
            print(f"not run: {what}: {why}", flush=True)

    @property
    def failed(self):
        """What did not hold so far."""
        return list(self._failed)

    def close(self):
        """The closing line; the exit status."""
        print(f"{self._passed} passed, {len(self._failed)} failed")
        return 1 if self._failed or not self._passed else 0
