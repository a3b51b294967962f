"""What the clients of MONAI Label call the datastore: images of the root and the archive, uploads, labels."""

import random
import time
from dataclasses import dataclass, field

from clickvol.files.limits import ReadLimits
from clickvol.server.http.failed_tokens import FailedTokens
from clickvol.server.monai_label.archive_images import ArchiveImages
from clickvol.server.monai_label.labels import LabelFolder
from clickvol.server.settings import ServerSettings

STRATEGIES = {
    "random": "an image without a final label, drawn at random",
    "first": "the first image without a final label, by name",
}
"""How the next sample can be chosen."""


@dataclass(slots=True)
class Datastore:
    """What a server keeps beside sessions, for the event loop's thread alone.

    Attributes:
        failed: who has given wrong passwords for the token.
        uploads: the names that each client has given to its uploads, until the server ends.
        offered: to whom each image was offered as the next sample, and when.
    """

    archive: ArchiveImages | None
    labels: LabelFolder | None
    failed: FailedTokens = field(default_factory=FailedTokens)
    uploads: dict[str, set[str]] = field(default_factory=dict)
    offered: dict[str, tuple[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: ServerSettings, limits: ReadLimits) -> "Datastore":
        """Return the datastore of a server; ClickvolError when archive or folder cannot be used."""
        address, folder = settings.dicomweb, settings.labels
        return cls(
            None if address is None else ArchiveImages(address, settings.state_folder, limits),
            None if folder is None else LabelFolder(folder),
        )

    def next_sample(self, strategy: str, client: str, images: list[str], seconds: float) -> str | None:
        """Return which image a client is to label next; None where none is left.

        Args:
            strategy: one of `STRATEGIES`.
            client: who asks.
            images: those without a final label.
            seconds: an image that another client was offered is left to it so long.
        """
        now = time.time()
        mine, free = {}, []
        for image in sorted(images):
            other, offered_at = self.offered.get(image, ("", 0.0))
            if other == client:
                mine[image] = offered_at
            elif offered_at < now - seconds:
                free.append(image)
        if not free and not mine:
            return None
        if free:
            image = free[0] if strategy == "first" else random.choice(free)
        else:
            image = min(mine, key=lambda name: mine[name])
        self.offered[image] = (client, now)
        return image
