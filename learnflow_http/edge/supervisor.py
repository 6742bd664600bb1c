"""Several processes that serve at the same sockets, and the one that started them and minds them.

The supervisor runs no event loop and no thread, and opens nothing but the sockets: so it can fork at any time. A forked
worker is there in a millisecond, shares the memory of all that was imported, and has what the supervisor made for it,
such as a table in shared memory.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn

from learnflow_http.edge.server import LEAVE, ServeError, shut

log = logging.getLogger(__name__)

_STOPS: Final = (signal.SIGTERM, signal.SIGINT)
_HEARD: Final = (*_STOPS, signal.SIGHUP, signal.SIGCHLD)
_OVERTIME_S: Final = 5.0
"""How much longer than its own limit a worker that is to stop may take, before it is killed."""

STEADY_S: Final = 10.0
"""A worker that lived for so long is replaced at once; after others a pause doubles, from the first to the longest."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 10.0
MAX_FAILURES: Final = 5
"""After so many starts in a row that came to nothing, while no worker serves, the supervisor gives up."""


class Link(NamedTuple):
    """What a worker has of its supervisor: its `number`, from 0, which no other has at the same time; `lifeline`, a
    descriptor that reads as ended when it is time to stop; and `report`, one to tell it by."""

    number: int
    lifeline: int
    report: int

    def serves(self) -> None:
        """Tell the supervisor that this worker serves."""
        os.write(self.report, _SERVES)


_SERVES: Final = b"+"


@dataclass(slots=True)
class _Seat:
    """A place for one worker: who has it, what it reported, and when the next may have it."""

    number: int
    pid: int = 0
    report: int = -1
    serves: bool = False
    told: bytes = b""
    since: float = 0.0
    pause_s: float = 0.0
    due: float = 0.0

    def leave(self) -> None:
        """Be empty: the worker has ended."""
        os.close(self.report)
        self.pid, self.serves = 0, False


class Supervisor:
    """Runs `work` in `workers` processes until it is told to stop, and replaces those that end before.

    `work` serves at the `sockets` until its link's lifeline ends, or until it is told to LEAVE them to the others. What
    it raises as ServeError is the reason told why it did not start. `stop_s` is how long a worker may take to stop.

    At SIGHUP every worker is renewed, one after the other: there is a place more than workers, and whoever starts in it
    serves before another leaves. A new worker is a copy of the supervisor as all are, with its settings and its code.

    Workers ignore SIGTERM, SIGINT and SIGHUP: Ctrl-C and service managers send these to every process, and who stopped
    before the others know would leave connections to nobody.
    """

    def __init__(
        self, work: Callable[[Link], None], *, workers: int, sockets: Sequence[socket.socket], stop_s: float
    ) -> None:
        self._work = work
        self._sockets = sockets
        self._stop_s = stop_s
        self._seats = [_Seat(number) for number in range(workers + 1)]
        self._spare = self._seats[-1]
        self._outdated: set[int] = set()  # the workers that were there at SIGHUP
        self._leaver: _Seat | None = None
        self._leave_by = 0.0
        self._lifeline = socket.socketpair()
        self._is_started = False
        self._failures = 0
        self._kill_at: float | None = None  # set while the workers stop

    def run(self, on_started: Callable[[], None]) -> None:
        """Start the workers, call `on_started` once all of them serve, and return when all have stopped.

        At SIGTERM or SIGINT they stop gracefully; a second signal ends them and this process at once. Closes the
        sockets. Raises ServeError when a worker cannot start to begin with, or later none can.
        """
        with _heard() as signals:
            try:
                while self._kill_at is None or any(seat.pid for seat in self._seats):
                    self._start_those_due()
                    self._wait(signals)
                    for number in _read(signals):
                        self._on_signal(number)
                    self._reap()
                    self._renew()
                    if not self._is_started and all(seat.serves for seat in self._seats if seat is not self._spare):
                        self._is_started = True
                        on_started()
            except BaseException:
                self._kill()
                raise
            finally:
                self._let_go()
                self._lifeline[0].close()

    def _start_those_due(self) -> None:
        now = time.monotonic()
        for seat in self._vacant():
            if seat.due <= now:
                self._start(seat)

    def _vacant(self) -> list[_Seat]:
        """The places that are to have a worker and have none."""
        if self._kill_at is not None:
            return []
        renews = bool(self._outdated) or self._leaver is not None
        return [seat for seat in self._seats if not seat.pid and (renews or seat is not self._spare)]

    def _renew(self) -> None:
        """Once the worker in the spare place serves, have one that is outdated leave, whose place is the spare then."""
        if self._leaver is not None or not self._spare.serves or self._kill_at is not None:
            return
        # Where none is outdated any more, because the last of them ended by itself, there is one too many.
        self._leaver = next((seat for seat in self._seats if seat.pid in self._outdated), self._spare)
        self._outdated.discard(self._leaver.pid)
        self._leave_by = time.monotonic() + self._stop_s + _OVERTIME_S
        os.kill(self._leaver.pid, LEAVE)

    def _start(self, seat: _Seat) -> None:
        report, end = os.pipe()
        os.set_blocking(report, False)
        seat.pid, seat.report, seat.serves, seat.told, seat.since = 0, report, False, b"", time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)  # until the child has left the parent's handlers behind
        try:
            seat.pid = os.fork()
            if seat.pid == 0:
                self._be_worker(seat.number, end)
        except OSError as error:
            self._replace(seat, f"no process: {error.strerror}")
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
            os.close(end)

    def _be_worker(self, number: int, report: int) -> NoReturn:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for heard in _HEARD:
                signal.signal(heard, signal.SIG_DFL if heard == signal.SIGCHLD else signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
            self._lifeline[1].close()
            self._work(Link(number, self._lifeline[0].fileno(), report))
            status = 0
        except ServeError as error:
            os.write(report, str(error).encode())
        except BaseException:
            log.exception("a worker failed")
        finally:
            sys.stdout.flush()
            logging.shutdown()  # lines that wait to be written
            os._exit(status)

    def _wait(self, signals: int) -> None:
        """Until a signal comes, a worker reports, or something is due."""
        due = [seat.due for seat in self._vacant()] if self._kill_at is None else [self._kill_at]
        due += [] if self._leaver is None else [self._leave_by]
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        reports = [seat.report for seat in self._seats if seat.pid and not seat.serves]
        for ready in select.select([signals, *reports], [], [], timeout)[0]:
            for seat in self._seats:
                if seat.pid and seat.report == ready:
                    self._listen(seat)
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            log.warning("workers did not stop in time and are killed")
            self._kill()
        elif self._leaver is not None and time.monotonic() >= self._leave_by:
            log.warning("a worker did not leave in time and is killed", extra={"worker": self._leaver.pid})
            os.kill(self._leaver.pid, signal.SIGKILL)
            self._leave_by += _OVERTIME_S

    def _listen(self, seat: _Seat) -> None:
        seat.told += _read(seat.report)
        if seat.told == _SERVES:
            seat.serves, self._failures = True, 0

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP and self._kill_at is None:
            log.info("every worker is renewed")
            self._outdated = {seat.pid for seat in self._seats if seat.pid and seat is not self._leaver}
        if number not in _STOPS:
            return
        if self._kill_at is not None:
            self._kill()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._kill_at = time.monotonic() + self._stop_s + _OVERTIME_S
        shut(self._sockets)
        self._let_go()

    def _let_go(self) -> None:
        """Close the sockets, where the workers let in who waits, and the lifeline, which tells them to."""
        for each in (*self._sockets, self._lifeline[1]):
            each.close()

    def _reap(self) -> None:
        for seat in self._seats:
            if seat.pid:
                pid, status = os.waitpid(seat.pid, os.WNOHANG)
                if pid:
                    self._on_end(seat, os.waitstatus_to_exitcode(status))

    def _on_end(self, seat: _Seat, status: int) -> None:
        self._listen(seat)
        self._outdated.discard(seat.pid)
        if seat is self._leaver:
            self._leaver, self._spare = None, seat
            seat.leave()
            if not self._outdated:
                log.info("the workers are renewed")
        elif self._kill_at is None:
            self._replace(seat, signal.Signals(-status).name if status < 0 else f"status {status}")
        else:
            seat.leave()

    def _replace(self, seat: _Seat, how: str) -> None:
        """Have another worker in the place of one that ended like that, in a while. ServeError when that is no use."""
        pid, served, told = seat.pid, seat.serves, seat.told.decode(errors="replace")
        seat.leave()
        self._failures += not served
        nobody = not any(each.serves for each in self._seats)
        if not served and (not self._is_started or (nobody and self._failures >= MAX_FAILURES)):
            raise ServeError(told or f"A worker ended with {how} before it served.")
        now = time.monotonic()
        steady = served and now - seat.since >= STEADY_S
        seat.pause_s = 0.0 if steady else min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * seat.pause_s))
        seat.due = now + seat.pause_s
        log.warning("a worker ended, and is replaced", extra={"worker": pid, "how": how, "pause_s": seat.pause_s})

    def _kill(self) -> None:
        """End what is left of the workers, and wait for it."""
        for seat in self._seats:
            if seat.pid:
                os.kill(seat.pid, signal.SIGKILL)  # nobody else reaps it, so the number is still its own
                os.waitpid(seat.pid, 0)
                seat.leave()


@contextmanager
def _heard() -> Iterator[int]:
    """A descriptor from which the numbers of the signals that arrive can be read."""
    told, tell = os.pipe()
    os.set_blocking(told, False)
    os.set_blocking(tell, False)
    before = [(number, signal.signal(number, lambda *_: None)) for number in _HEARD]
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    try:
        yield told
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before:
            signal.signal(number, handler)
        os.close(told)
        os.close(tell)


def _read(descriptor: int) -> bytes:
    with suppress(BlockingIOError):
        return os.read(descriptor, 4_096)
    return b""


def apart(work: Callable[[], str]) -> str:
    """What some work gives that is done in a process of its own, so that none of its threads is left in this one.

    An exception ends that process as it would have ended this one, which ends with the same status.
    """
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        result = work()
        with os.fdopen(tell, "w") as pipe:
            pipe.write(result)
        os._exit(0)
    os.close(tell)
    with os.fdopen(told) as pipe:
        result = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise SystemExit(status if status > 0 else 128 - status)
    return result
