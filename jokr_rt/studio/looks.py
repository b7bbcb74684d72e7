"""What the creatures that a visitor sees look like: as the model has them, or as in pictures of his own."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import DIRECTIONS
from jokr_rt.errors import InputError
from jokr_rt.looks import with_looks
from jokr_rt.retarget import Model, Retargeter
from jokr_rt.studio.messages import Message
from jokr_rt.studio.worker import Worker, to_its_end
from jokr_rt.video import jpeg, read_picture


@dataclass(frozen=True)
class _Chosen:
    """name: of the picture, for people. picture: as the extractor saw it, in JPEG. model: which has its looks."""

    name: str
    picture: bytes
    model: Model
    retargeter: Retargeter


class Looks:
    """One visitor's, for each direction by itself. Retargeters are made, used and closed in the worker's thread."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._chosen: dict[str, _Chosen] = {}
        self._is_closed = False

    def message(self) -> Message:
        """All that were chosen: the header's field "names" has the pictures' by direction, the parts are these."""
        every = dict(self._chosen)  # the worker's thread may change them meanwhile
        names = {direction: chosen.name for direction, chosen in every.items()}
        return Message("looks", {"names": names}, tuple(chosen.picture for chosen in every.values()))

    def model(self, direction: str) -> Model:
        """What is drawn with from now on in "a2b" or "b2a"; it stays as it is when others are chosen."""
        chosen = self._chosen.get(direction)
        return chosen.model if chosen else self._worker.model

    def retargeter(self, direction: str) -> Retargeter:
        """The same; to be called, and used, in the worker's thread."""
        chosen = self._chosen.get(direction)
        return chosen.retargeter if chosen else self._worker.retargeter(direction)

    async def choose(self, direction: str, path: Path, name: str, max_pixels: int) -> None:
        """Those of a visitor's picture, called `name`, for "a2b" or "b2a". Raises InputError, EngineError.

        Where it raises, the ones of before stay.
        """
        try:
            picture = await to_its_end(read_picture, path, self._worker.model.config.size, max_pixels)
        except InputError as error:
            raise InputError(str(error).replace(f"{path}", name)) from None
        await self._worker.call(self._choose, direction, name, picture)

    async def drop(self, direction: str) -> None:
        """Go back to the model's own."""
        await self._worker.call(self._free, direction)

    async def close(self) -> None:
        """Free what they hold, and what is still being made."""
        self._is_closed = True
        for direction in list(self._chosen):
            await self.drop(direction)

    def _choose(self, direction: str, name: str, picture: NDArray[np.uint8]) -> None:
        model = with_looks(self._worker.model, self._worker.engine, DIRECTIONS[direction][1], picture)
        made = Retargeter(model, direction, self._worker.engine)
        self._free(direction)
        self._chosen[direction] = _Chosen(name, jpeg(picture), model, made)
        if self._is_closed:  # meanwhile
            self._free(direction)

    def _free(self, direction: str) -> None:
        if (chosen := self._chosen.pop(direction, None)) is not None:
            chosen.retargeter.close()
