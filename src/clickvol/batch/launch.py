"""Which part of a batch this process does: all of it, one of n by the user's word, or one of torchrun's."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from clickvol.errors import ConfigError

# A rank may wait for the slowest for as long as a batch lasts.
_LONGEST_WAIT = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Every `count`-th row, beginning with row `number`.

    Attributes:
        number: from 1 to `count`.
        count: how many parts there are.

    Raises:
        ConfigError: on construction, for a number that is not one of the parts.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ConfigError(
                f"there is no shard {self.number}/{self.count}; give 1/{self.count} to "
                f"{self.count}/{self.count}"
            )

    def holds(self, row_number: int) -> bool:
        """Tell whether a row, counted from 1, belongs to this part."""
        return (row_number - 1) % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_shard(text: str) -> Shard:
    """Parse "2/8".

    Raises:
        ConfigError: for anything else.
    """
    found = re.fullmatch(r"\s*(\d{1,6})\s*/\s*([1-9]\d{0,5})\s*", text)
    if found is None:
        raise ConfigError(
            f"cannot read the shard {text!r}; give its number and how many there are, such as 2/8"
        )
    return Shard(number=int(found.group(1)), count=int(found.group(2)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """The place of this process among those that a launcher started.

    Attributes:
        shard: its part of the rows.
        first_slot: number of its first worker on the machine, from 0.
    """

    shard: Shard
    first_slot: int = 0


@contextlib.contextmanager
def launched(shard: Shard | None, environment: Mapping[str, str]) -> Iterator[Launch]:
    """Take the place that torchrun gives, or the shard of the user, or everything.

    Under torchrun the block ends when those of all processes have ended: torchrun stops the others as soon as
    one of them reports a failure, and a row that failed here must not stop the rows there.

    Args:
        shard: what the user asked for; None for no wish.
        environment: of this process; WORLD_SIZE, RANK and LOCAL_RANK are torchrun's.

    Raises:
        ConfigError: when both are given.
    """
    count = int(environment.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Launch(shard=shard or Shard())
        return
    if shard is not None:
        raise ConfigError(
            f"the launcher has started {count} processes, which are the shards; leave out --shard"
        )
    from torch import distributed

    distributed.init_process_group("gloo", timeout=_LONGEST_WAIT)
    try:
        yield Launch(
            shard=Shard(number=int(environment["RANK"]) + 1, count=count),
            first_slot=int(environment.get("LOCAL_RANK", "0")),
        )
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
