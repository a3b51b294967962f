"""The legend of shape letters used in every docstring.

B  batch                       N  clicks of one sample, padded to the longest in the batch
C  channels of an image        T  tokens
K  classes                     E  embedding width
D H W  patch or volume voxels  d h w  cells of a feature map (coarser than D H W)

Array axes run from slowest to fastest: d, h, w. In a model's patch they follow the patient:
d grows to superior (+z), h to anterior (+y), w to the right (+x).
"""

FOREGROUND_LABEL = 1
"""Label of a click inside the object."""

BACKGROUND_LABEL = 0
"""Label of a click beside the object."""

PADDING_LABEL = -1
"""Label of a slot that holds no click; it must not influence any result."""
