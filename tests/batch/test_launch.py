import pytest

from clickvol.batch.launch import Launch, Shard, launched, parse_shard
from clickvol.errors import ConfigError


def test_every_row_is_in_exactly_one_shard():
    shards = [Shard(number=n, count=3) for n in (1, 2, 3)]
    held = [[row for row in range(1, 9) if shard.holds(row)] for shard in shards]
    assert held == [[1, 4, 7], [2, 5, 8], [3, 6]]
    assert all(Shard().holds(row) for row in range(1, 9))


def test_the_text_of_a_shard():
    assert parse_shard(" 2 / 8 ") == Shard(number=2, count=8)
    assert str(Shard(number=2, count=8)) == "2/8"
    for text in ("", "2", "2/", "a/b", "1/0", "-1/2", "1/2/3"):
        with pytest.raises(ConfigError, match="cannot read the shard"):
            parse_shard(text)
    for text in ("0/8", "9/8"):
        with pytest.raises(ConfigError, match=r"there is no shard ./8; give 1/8 to 8/8"):
            parse_shard(text)


def test_alone_a_process_does_what_the_user_says():
    with launched(None, {}) as launch:
        assert launch == Launch(shard=Shard())
    with launched(Shard(number=2, count=3), {"WORLD_SIZE": "1"}) as launch:
        assert launch == Launch(shard=Shard(number=2, count=3))


def test_under_torchrun_the_rank_is_the_shard(monkeypatch):
    from torch import distributed

    steps = []
    monkeypatch.setattr(distributed, "init_process_group", lambda name, timeout: steps.append(name))
    monkeypatch.setattr(distributed, "barrier", lambda: steps.append("barrier"))
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: steps.append("destroy"))
    environment = {"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1"}
    with launched(None, environment) as launch:
        assert launch == Launch(shard=Shard(number=6, count=8), first_slot=1)
        assert steps == ["gloo"]
    # The others are waited for, or the launcher would end them when this one reports a failure.
    assert steps == ["gloo", "barrier", "destroy"]
    with (
        pytest.raises(ConfigError, match="8 processes, which are the shards"),
        launched(Shard(), environment),
    ):
        pass
