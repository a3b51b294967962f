import json

import pytest
from pydantic import ValidationError

from clickvol.evaluation.records import ClickScore
from reference.click_scores import click_score


def test_the_surface_dice_is_read_by_its_tolerance():
    score = click_score(nsd=(0.25, 0.75), nsd_tolerances_mm=(0.5, 3.0))
    assert (score.nsd_at(0.5), score.nsd_at(3.0)) == (0.25, 0.75)
    with pytest.raises(ValueError, match="not in tuple"):
        score.nsd_at(2.0)


def test_every_tolerance_has_one_number():
    with pytest.raises(ValidationError, match="3 surface Dice were given for 2 tolerances"):
        click_score(nsd_tolerances_mm=(1.0, 2.0))


def test_a_record_of_an_earlier_version_has_the_usual_tolerances():
    line = json.loads(click_score().model_dump_json())
    del line["nsd_tolerances_mm"]
    score = ClickScore.model_validate_json(json.dumps(line))
    assert score.nsd_tolerances_mm == (1.0, 2.0, 5.0)
    assert score == click_score()
