"""The `scenebeam` process: how signals stop it, and its exit codes."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import NoReturn

from scenebeam.cli.common import exit_code, main
from scenebeam.errors import Terminated

_GRACE = 60.0
"""Seconds that a run has after a signal to stop its threads and write its status."""


def run_command() -> NoReturn:
    """Run the command line and end the process with the documented exit code.

    SIGTERM and SIGHUP stop a run as Ctrl-C does. The process ends by `os._exit`: threads of native
    libraries (such as Arrow's) outlive the interpreter, and sometimes aborted a process that had
    already reported its end (exit code 134).
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, _terminate)
    _end_after_grace()
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except KeyboardInterrupt as signalled:
        code = exit_code(signalled)
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:  # the reader of the pipe has ended
                code = code or 1
    os._exit(code)


def _terminate(number: int, frame: object) -> NoReturn:
    raise Terminated(number)


def _end_after_grace() -> None:
    """End the process some time after a signal, or at the second one, even if it hangs.

    The interpreter writes a byte to a socket at each signal, whatever its threads wait for.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        with sender:
            number = receiver.recv(1)[0]
            receiver.settimeout(_GRACE)
            with suppress(TimeoutError):
                receiver.recv(1)
            os._exit(128 + number)

    threading.Thread(target=watch, daemon=True, name="signals").start()
