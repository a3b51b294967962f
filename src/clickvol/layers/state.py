"""Whether named tensors are those that a network asks for."""

from collections.abc import Mapping

from torch import Tensor


def state_faults(state: Mapping[str, object], wanted: Mapping[str, Tensor], part: str = "") -> list[str]:
    """Return what is missing, unknown, no such numbers or of another shape, one clause each.

    Of the wanted tensors kind and shape count. `part` stands before every name.
    """
    faults = [f"{part}{name} is missing" for name in wanted if name not in state]
    for name, value in state.items():
        if name not in wanted:
            faults.append(f"{part}{name} is unknown")
            continue
        is_float, shape = wanted[name].is_floating_point(), tuple(wanted[name].shape)
        if not isinstance(value, Tensor) or value.is_floating_point() != is_float:
            faults.append(f"{part}{name} is no tensor of {'floating-point' if is_float else 'whole'} numbers")
        elif tuple(value.shape) != shape:
            faults.append(f"{part}{name} has shape {tuple(value.shape)}, expected {shape}")
    return faults
