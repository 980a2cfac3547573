"""Processes and ports: what is started here ends here."""

import ctypes
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

repository = pathlib.Path(__file__).resolve().parents[2]

# Below the range that the kernel takes source ports from, so that nobody's connection sits on a port between our finding
# it free and its owner's binding it.
_PORTS = range(10_000, 32_000)
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class NotHere(Exception):
    """A tool that this machine cannot have, and why."""


def tool(name, *arguments):
    """The paths that `tests/tools/NAME` prints, one as a string, several as a list."""
    script = repository / "tests/tools" / name
    done = subprocess.run([script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    said = done.stderr.strip().splitlines()
    # Status 3: it cannot be had here. Any other is a fault of the script.
    if done.returncode == 3:
        raise NotHere(said[-1] if said else name)
    if done.returncode != 0:
        raise RuntimeError(f"tests/tools/{name}: exit status {done.returncode}: {said[-1] if said else ''}")
    paths = done.stdout.split()
    return paths[0] if len(paths) == 1 else paths


def _environment():
    """The environment of a process: what the tests themselves are told (RAFTHTTP_…) is no flag of a member's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAFTHTTP_")}


def binary():
    """The rafthttp to test."""
    path = pathlib.Path(os.environ.get("RAFTHTTP_BIN") or repository / "target/debug/rafthttp").resolve()
    if not os.access(path, os.X_OK):
        raise NotHere(f"{path} is not here: cargo build, or set RAFTHTTP_BIN")
    return path


def until(what, holds, seconds=30.0, pause=0.05):
    """Asks `holds` until it answers something true, and returns that. What it raises counts as no, and is told."""
    end, last = time.monotonic() + seconds, None
    while True:
        try:
            last = holds()
            if last:
                return last
        except (OSError, ValueError, KeyError) as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what} (last: {last!r})")
        time.sleep(pause)


class Process:
    """A program that runs. Its output is in `log`."""

    def __init__(self, name, arguments, log, environment):
        self.name, self.arguments, self.log, self.environment = name, [str(part) for part in arguments], log, environment
        self._child = None

    def start(self):
        assert not self.runs(), f"{self.name} runs already"
        with open(self.log, "ab") as log:
            self._child = subprocess.Popen(
                self.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**_environment(), **self.environment}, preexec_fn=_end_with_parent,
            )
        return self

    @property
    def pid(self):
        return self._child.pid

    def runs(self):
        return self._child is not None and self._child.poll() is None

    def until_ready(self, holds, seconds=60):
        """Waits until `holds`; a process that ended meanwhile fails at once, with what it said."""
        def ready():
            assert self.runs(), f"{self.name} ended:\n{self.said()}"
            return holds()
        until(f"{self.name} is ready", ready, seconds)
        return self

    def freeze(self):
        """SIGSTOP: its connections stay, and it does nothing. Returns when every thread of it has stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        until(f"{self.name} stands still", lambda: _state(self.pid) == "T", 10)

    def thaw(self):
        os.kill(self.pid, signal.SIGCONT)

    def kill(self):
        """`kill -9`; a frozen one too."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def stop(self, seconds=15):
        """SIGTERM, and `kill -9` if it takes too long. Returns its exit status."""
        if self.runs():
            self._child.terminate()
            self.thaw()
            try:
                self._child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._child.returncode if self._child else None

    def said(self, lines=20):
        """The end of its log."""
        try:
            return "\n".join(pathlib.Path(self.log).read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""


class Lab:
    """A directory, free ports, and the processes of one test. A context manager: at its end all of it is gone."""

    def __init__(self, keep=bool(os.environ.get("RAFTHTTP_LAB_KEEP"))):
        self._keep, self._processes, self._others, self._lock = keep, [], [], threading.Lock()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="rafthttp-lab-"))
        _labs.add(self)

    def __enter__(self):
        _end_on_sigterm()
        return self

    def __exit__(self, *_):
        for other in self._others[::-1]:
            other.close()
        self.close()

    def close(self):
        """Ends the processes and takes the directory away, or says where it is kept (RAFTHTTP_LAB_KEEP=1)."""
        for process in self._processes[::-1]:
            process.kill()
        _labs.discard(self)
        if self._keep:
            print(f"kept: {self.directory}", flush=True)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    def process(self, name, arguments, environment=None):
        """A process that is this lab's to end; not started yet."""
        process = Process(name, arguments, self.directory / f"{name}.log", environment or {})
        with self._lock:
            self._processes.append(process)
        return process

    def owns(self, closable):
        """Has `close()` called at the end."""
        with self._lock:
            self._others.append(closable)
        return closable

    def path(self, name):
        return self.directory / name

    @staticmethod
    def port():
        """A free port, each given once by this process."""
        with _given_lock:
            while True:
                port = random.choice(_PORTS)
                if port not in _given and _is_free(port):
                    _given.add(port)
                    return port


_given, _given_lock = set(), threading.Lock()
_labs = set()


def _is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _end_with_parent():
    """Whatever happens to the test, even kill -9, the program ends with the thread that started it."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _state(pid):
    """The process's state letter, `T` when every thread of it has stopped, else another."""
    states = set()
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        states.add((task / "stat").read_text().rpartition(") ")[2][0])
    return states.pop() if len(states) == 1 else "?"


def _end_on_sigterm():
    """What `timeout` or a runner ends is ended at once, whatever its threads wait for, and leaves nothing behind."""
    def end(*_):
        for lab in list(_labs):
            lab.close()
        os._exit(143)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)
