"""Checks, counted. A part is a module with `run(check)`; a check that fails is told, and the others go on."""

import os
import traceback

from lab import NotHere

TIER_IS_ALL = os.environ.get("RAFTHTTP_TEST_TIER") == "all"


class Checks:
    """Counts what holds and what does not."""

    def __init__(self, part):
        self.part, self.passed, self.failed = part, 0, []

    def __call__(self, what, holds, why=""):
        """One check. `holds` is a truth value, or a function whose AssertionError says why not."""
        try:
            if callable(holds):
                holds()
            else:
                assert holds, why
            self.passed += 1
        except AssertionError as error:
            self.failed.append(what)
            print(f"failed: {self.part}: {what}: {error}")

    def equal(self, what, found, expected):
        self(what, found == expected, f"{found!r}, expected {expected!r}")


def not_run(what, why):
    """Names what this machine cannot run."""
    print(f"not run: dashboards: {what}: {why}")


def run(parts, only):
    """Runs the parts whose name contains one of `only`; returns the exit status."""
    passed, failed = 0, 0
    for part in parts:
        if only and not any(name in part.__name__ for name in only):
            continue
        check = Checks(part.__name__)
        try:
            part.run(check)
        except NotHere as missing:
            not_run(part.__name__, missing)
        except Exception as error:  # whatever ends a part is a failure of it, and the next part runs
            traceback.print_exc()
            check("runs to its end", False, repr(error))
        print(f"{part.__name__}: {check.passed} held, {len(check.failed)} did not")
        passed, failed = passed + check.passed, failed + len(check.failed)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0
