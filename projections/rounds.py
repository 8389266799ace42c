"""Rounds: many who ask the same kind of question at the same time are answered by one look.

While one look is under way, those who ask wait, however many they are; then one look serves them all, or as many as a
look takes. So a storm of questions costs a few large statements instead of many small ones, and nobody who waits in
line is told that Postgres is down because its connections are busy.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Rounds(Generic[Asked, Answer]):
    """One line of those who wait. What has been asked is answered or refused; who is cancelled is passed over.

    Args:
        look: answers up to `most` questions, in their order. What it raises, each of those who asked is told.
    """

    def __init__(self, look: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]], *, most: int) -> None:
        self._look = look
        self._most = most
        self._waiting: deque[tuple[Asked, asyncio.Future[Answer]]] = deque()
        self._looking: asyncio.Task[None] | None = None

    async def ask(self, asked: Asked) -> Answer:
        """The answer to one question, from a look that began after it was asked.

        Raises: what the look does.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._looking is None:
            self._looking = asyncio.create_task(self._rounds())
        return await future

    async def _rounds(self) -> None:
        try:
            while self._waiting:
                taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                asking = [(asked, future) for asked, future in taken if not future.done()]
                if asking:
                    await self._round(asking)
        finally:
            self._looking = None

    async def _round(self, asking: "list[tuple[Asked, asyncio.Future[Answer]]]") -> None:
        try:
            answers = await self._look([asked for asked, _ in asking])
        except BaseException as error:
            for _, future in asking:
                if not future.done():
                    if isinstance(error, Exception):
                        future.set_exception(error)
                    else:
                        future.cancel()
            if not isinstance(error, Exception):
                raise
        else:
            for (_, future), answer in zip(asking, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
