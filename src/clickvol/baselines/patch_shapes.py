"""Which patches a network takes."""

from clickvol.errors import ConfigError

Triple = tuple[int, int, int]


def require_multiple(shape_dhw: Triple, step_dhw: Triple, network: str) -> None:
    """Refuse a patch whose sides are not multiples of what a network halves.

    Args:
        shape_dhw: (D, H, W) of the patch.
        step_dhw: what each side must be a multiple of.
        network: its name, for the message.

    Raises:
        ConfigError: for such a patch.
    """
    if any(n < k or n % k for n, k in zip(shape_dhw, step_dhw, strict=True)):
        raise ConfigError(
            f"a patch of {shape_dhw} does not suit {network}, whose patches have sides that are multiples "
            f"of {step_dhw}; choose another patch shape"
        )


def require_same(shape_dhw: Triple, made_for_dhw: Triple, network: str) -> None:
    """Refuse a patch of another shape than the one that a network has learned positions for.

    Raises:
        ConfigError: for such a patch.
    """
    if shape_dhw != made_for_dhw:
        raise ConfigError(
            f"a patch of {shape_dhw} does not suit this {network}, which has learned positions in patches of "
            f"{made_for_dhw}; cut the patch to that shape"
        )
