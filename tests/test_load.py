"""The load benchmark, small: every kind of client at once, nothing lost, nothing mixed up."""

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("nnInteractive", reason="nninteractive-client is not installed")

from clickvol.methods.promise3d import promise3d_recipe
from clickvol.phantoms.phantom import make_phantom
from reference.forked_program import ForkedProgram
from reference.load import load
from reference.random_models import write_random_model


class Server(ForkedProgram):
    """A server that wrote what it writes to stderr, and no more, when it has ended."""

    def communicate(self):
        _, told = super().communicate()
        assert told == "Research use only, not a medical device. Ctrl-C ends it.\n"


@pytest.mark.slow
def test_a_session_of_each_kind(tmp_path, capfd):
    card = write_random_model(promise3d_recipe("clickvol", "tiny"), tmp_path)
    words = "--seconds 1 --min-steps 3 --sessions 4 --shape 16 40 44 --memory-mb 1 --model"
    assert load.main([*words.split(), str(card)], Server) == 0
    out, err = capfd.readouterr()
    assert err == ""
    rows = [line.split(" | ") for line in out.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == ["| Python", "| MONAI Label", "| nnInteractive", "| ITK-SNAP"]
    for row in rows:
        assert row[1] == "1"
        assert int(row[2]) >= 3
        assert row[4:7] == ["0", "0", "0"]


def test_a_mask_that_differs_is_reported(capsys):
    user = load.User(
        1, "Python", make_phantom(1, shape_dhw=(16, 40, 44)), seconds=[1.0], mixed_up=3, compared=1
    )
    arguments = type("Words", (), {"seconds": 1.0})
    assert load.report([user], [1.0], arguments) == 1
    assert "| Python | 1 | 1 | 0 | 0 | 0 | 3 | 1.00 / 1.00 / 1.00 |" in capsys.readouterr().out
    user.mixed_up = 0
    assert load.report([user], [1.0], arguments) == 0
    user.compared = 0
    assert load.report([user], [1.0], arguments) == 1


def test_a_session_that_gives_another_mask_is_noticed():
    class Client:
        def __init__(self, address, token, volume):
            self.seen = np.zeros((1, 1, 2), np.uint8)

        def click(self, clicks):
            self.seen[0, 0, len(clicks) - 1] = 1

        def mask(self):
            return self.seen

        def num_clicks(self):
            return 1

        def close(self):
            pass

    user = load.User(1, "stub", make_phantom(1, shape_dhw=(16, 40, 44)))
    user.clicks = [(None, True), (None, True)]
    load.KINDS["stub"] = Client
    try:
        load.compare(user, Client(None, None, None), "")
    finally:
        del load.KINDS["stub"]
    assert (user.lost, user.mixed_up, user.compared) == (1, 2, 0)
