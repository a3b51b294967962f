"""The text form of a click, as the command line and the manifest of a batch have it."""

from clickvol.errors import ClickError
from clickvol.prompts.click import Click, Space, check_any_inside

_SIGNS = {":+": True, ":-": False}


def parse_click(text: str, *, space: Space) -> Click:
    """Parse `I,J,K`, with `:-` behind it for a background click (`:+` is the default).

    Args:
        text: such as "120,88,41", "-12.5,30,4:-".
        space: what the three numbers are; see `Click.at`.

    Raises:
        ClickError: when the text is not three finite numbers.
    """
    sign = text.strip()[-2:]
    numbers = text.strip()[:-2] if sign in _SIGNS else text
    try:
        coordinates = [float(number) for number in numbers.split(",")]
    except ValueError:
        coordinates = []
    if len(coordinates) != 3:
        raise ClickError(
            f"cannot read the click {text!r}; give three numbers with commas and no spaces, such "
            "as 120,88,41 (or 120,88,41:- for a background click)"
        )
    first, second, third = coordinates
    click = Click.at((first, second, third), space=space, foreground=_SIGNS.get(sign, True))
    if not click.position.is_finite():
        raise ClickError(f"the click {text!r} is not finite; give three finite numbers")
    return click


def parse_clicks(texts: list[str], *, space: Space) -> tuple[Click, ...]:
    """Parse all clicks on one object; an automatic model needs none.

    Raises:
        ClickError: when one cannot be read, or there are some and none is in the object.
    """
    clicks = tuple(parse_click(text, space=space) for text in texts)
    if clicks:
        check_any_inside(clicks)
    return clicks
