"""What streams of frames share: a thread that reads ahead, one that writes behind, and Ctrl-C between two frames."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Generic, TypeVar

from jokr_rt.errors import JokrError
from jokr_rt.frame import Frame
from jokr_rt.interrupt import Interrupt, deferred_interrupt
from jokr_rt.timing import Timings, process_age
from jokr_rt.video import VideoWriter

DEPTH = 4  # frames that wait before and after inference: evens out the coder's moods, and bounds the memory

Item = TypeVar("Item")
Result = TypeVar("Result")


class Pipeline(Generic[Item, Result]):
    """One thread reads, the caller's infers, one writes; each works on one frame at a time, so that none can hang.

    infer: results for items, in order; it may take some ahead. compose: from an item and its result to the frame that
    is written. Its time and the encoder's are counted as "write".
    """

    def __init__(
        self,
        infer: Callable[[Iterator[Item]], Generator[Result, None, None]],
        compose: Callable[[Item, Result], Frame],
        writer: VideoWriter,
        timings: Timings,
        interrupt: Interrupt,
    ) -> None:
        self.infer = infer
        self.compose = compose
        self.writer = writer
        self.timings = timings
        self.interrupt = interrupt
        self.first_frame_s: float | None = None

    def run(self, items: Iterable[Item], tell: Callable[[int], object]) -> None:
        with ThreadPoolExecutor(1, "jokr-write") as writing, closing(read_ahead(items, self.interrupt)) as ahead:
            self._pump(ahead, writing, tell)

    def _pump(self, items: Iterator[Item], writing: ThreadPoolExecutor, tell: Callable[[int], object]) -> None:
        begun: deque[Item] = deque()
        behind: deque[Future[None]] = deque()

        def noting() -> Iterator[Item]:
            for item in items:
                begun.append(item)
                yield item

        with closing(self.infer(noting())) as results:
            for done, result in enumerate(results, start=1):
                if done == 1:
                    self.first_frame_s = process_age()
                # Finished writes are looked at right away: a full disk ends the run now, not DEPTH frames later.
                while behind and (behind[0].done() or len(behind) == DEPTH):
                    behind.popleft().result()
                behind.append(writing.submit(self._write, begun.popleft(), result, behind[-1] if behind else None))
                tell(done)
        self.interrupt.raise_if_requested()
        for write in behind:
            write.result()

    def _write(self, item: Item, result: Result, last: Future[None] | None) -> None:
        if last is not None:
            last.result()  # raises where it failed: this frame would come after a gap
        with self.timings.measure("write"):
            self.writer.write(self.compose(item, result))


def read_ahead(items: Iterable[Item], interrupt: Interrupt) -> Generator[Item, None, None]:
    """The same items, taken by a thread up to DEPTH ahead; after an interrupt they end early."""
    source = iter(items)
    with ThreadPoolExecutor(1, "jokr-read") as reading:
        ahead = deque(reading.submit(_take, source) for _ in range(DEPTH))
        while not interrupt.requested and (taken := ahead.popleft().result()):
            ahead.append(reading.submit(_take, source))
            yield taken[0]


def timed(items: Iterable[Item], timings: Timings) -> Iterator[Item]:
    """The same items; the time that each took is counted as "read"."""
    source = iter(items)
    start = time.perf_counter()
    while taken := _take(source):
        timings.add("read", time.perf_counter() - start)
        yield taken[0]
        start = time.perf_counter()


def _take(items: Iterator[Item]) -> tuple[Item, ...]:
    """The next one, if there is one."""
    for item in items:
        return (item,)
    return ()


@contextmanager
def finishing(writer: VideoWriter) -> Iterator[Interrupt]:
    """At the end the video is finished; after an error what there is of it, and the error says so."""
    try:
        with deferred_interrupt() as interrupt, writer:
            yield interrupt
    except (JokrError, KeyboardInterrupt) as error:
        raise _with_remains(error, writer) from error


def _with_remains(error: JokrError | KeyboardInterrupt, writer: VideoWriter) -> JokrError | KeyboardInterrupt:
    """The same error, also saying what is left of the output."""
    if writer.kept is None or str(writer.kept) in str(error):
        return error
    kept = f"the first {writer.frames} frames are kept in {writer.kept}"
    return type(error)(f"{error}; {kept}" if str(error) else kept)
