"""How many ask at once, so that a batch is taken when about half of them have come.

A batch has a fixed cost, so it pays to wait for company; but to wait for callers that do not exist is lost time. While
half of the crowd's uses are being decided, the other half comes in.
"""

from __future__ import annotations

LOOK_EVERY = 16  # batches
FADES = 0.95  # per batch in which not as many were seen


class Crowd:
    """`goal` before a batch is taken, `saw` or `saw_all` afterwards. Uses are counted, not callers."""

    def __init__(self) -> None:
        self._size = 1.0
        self._batches = 0

    def goal(self, most: int) -> int:
        """How many uses the next batch should have; at most `most`.

        Now and then all there are, for who waits in sockets is not seen otherwise. Who is alone waits for nobody.
        """
        self._batches += 1
        if self._size > 1 and self._batches % LOOK_EVERY == 0:
            return most
        return min(most, max(1, round(self._size / 2)))

    def saw(self, uses: int) -> None:
        """So many at least: those of a batch, and those who came while it was decided."""
        self._size = max(float(uses), self._size * FADES)

    def saw_all(self, uses: int) -> None:
        """So many waited, and nobody else came. Others may be reading their answers still: forgotten by halves."""
        self._size = max(float(uses), self._size / 2)
