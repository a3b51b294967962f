"""Sessions and scans as they travel. Torch-free."""

from clickvol.io.volume import Volume
from clickvol.preprocessing.intensity import recognise_modality, value_sample
from clickvol.server.sessions import Live
from clickvol.server.wire import ClickOut, ExtentOut, ObjectOut, ScanOut, StateOut


def state_out(live: Live, revision: int) -> StateOut:
    """Return a session's state as it travels."""
    grid = live.volume.grid
    objects = []
    for known in live.session.objects:
        clicks = []
        for click in known.clicks:
            place = click.world(grid)
            clicks.append(ClickOut(ras_mm=(place.x, place.y, place.z), positive=click.foreground))
        objects.append(
            ObjectOut(
                id=known.id,
                name=known.name,
                frozen=known.frozen,
                volume_ml=known.volume_ml,
                num_voxels=known.num_voxels,
                clicks=clicks,
            )
        )
    return StateOut(
        revision=revision,
        objects=objects,
        can_undo=live.session.can_undo,
        can_redo=live.session.can_redo,
    )


def scan_out(volume: Volume, *, is_dicom: bool) -> ScanOut:
    """Return what a client needs to know of a scan; as which it is treated where its file does not say."""
    d, h, w = volume.grid.shape_dhw
    sd, sh, sw = (float(v) for v in volume.grid.spacing_dhw_mm)
    low, high = volume.grid.extent_ras_mm()
    modality = volume.modality
    if modality == "unknown":
        modality = recognise_modality(volume, value_sample(volume)).modality
    return ScanOut(
        shape_ijk=(w, h, d),
        spacing_ijk_mm=(sw, sh, sd),
        modality=modality,
        extent_ras_mm=ExtentOut(low=(low.x, low.y, low.z), high=(high.x, high.y, high.z)),
        is_dicom=is_dicom,
        notes=list(volume.notes),
    )
