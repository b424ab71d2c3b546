"""Parts of work that several processes or machines divide among them."""

import re
from dataclasses import dataclass

from core.errors import UserError


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of several.

    Attributes:
        number: from 1.
        total: how many there are.
    """

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Reads "I/N".

        Raises:
            UserError: it is no part of N.

        >>> Shard.parse("2/4")
        Shard(number=2, total=4)
        """
        match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f"shard {text!r}: expected I/N, part I of N, such as 1/4")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def rows(self, images: int, unit: int) -> range:
        """Its rows; all but the last row of all begin and end at multiples of `unit`.

        >>> [Shard(number, 3).rows(100, 32) for number in (1, 2, 3)]
        [range(0, 32), range(32, 64), range(64, 100)]
        """
        units = images // unit
        first, last = ((units * place // self.total) * unit for place in (self.number - 1, self.number))
        return range(first, images if self.number == self.total else last)
