"""Addresses with wrong tokens wait."""

import pytest

from clickvol.server.http.failed_tokens import FailedTokens


@pytest.fixture
def clock():
    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    return Clock()


def test_five_mistakes_are_free_then_each_doubles_the_wait_up_to_a_minute(clock):
    failed = FailedTokens(clock)
    waits = []
    for _ in range(14):
        assert failed.seconds_to_wait("10.0.0.1") == 0
        failed.note("10.0.0.1")
        waits.append(failed.seconds_to_wait("10.0.0.1"))
        clock.now += waits[-1]
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert failed.seconds_to_wait("10.0.0.2") == 0


def test_part_of_a_second_is_a_second(clock):
    failed = FailedTokens(clock)
    for _ in range(6):
        failed.note("a")
    clock.now += 0.5
    assert failed.seconds_to_wait("a") == 2
    clock.now += 1.4
    assert failed.seconds_to_wait("a") == 1


def test_an_hour_later_all_is_forgotten(clock):
    failed = FailedTokens(clock)
    for _ in range(20):
        failed.note("a")
    clock.now += 3600
    failed.note("a")
    assert failed.seconds_to_wait("a") == 0


def test_memory_is_bounded_and_the_newest_stays(clock):
    failed = FailedTokens(clock)
    for number in range(10_000):
        clock.now += 1
        failed.note(f"10.0.{number // 256}.{number % 256}")
    assert len(failed) == 4096
    for _ in range(9):
        failed.note("10.0.39.15")
    assert failed.seconds_to_wait("10.0.39.15") == 32


@pytest.mark.parametrize(
    ("address", "same", "is_same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("no address", "no address", True),
        ("::1", "0.0.0.1", False),
    ],
)
def test_whoever_has_a_network_of_addresses_is_one(clock, address, same, is_same):
    failed = FailedTokens(clock)
    for _ in range(5):
        failed.note(address)
    assert (failed.seconds_to_wait(same) == 1) == is_same
