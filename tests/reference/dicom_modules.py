"""Which attributes a DICOM file must have, by the tables of PS3.3 that come with highdicom."""

from highdicom._standard_utils import (
    get_iod_module_map,
    get_module_attribute_map,
    get_sop_class_iod_map,
)

# A functional group stands in the shared or in the per-frame sequence, and the table names both.
GROUPS = "multi-frame-functional-groups"


def missing_attributes(dataset):
    """Return what a file lacks of its mandatory modules: absent, or empty where a value is demanded."""
    iod = get_sop_class_iod_map()[dataset.SOPClassUID]
    lacking = []
    for module in get_iod_module_map()[iod]:
        if module["usage"] != "M" or GROUPS in module["key"]:
            continue
        for attribute in get_module_attribute_map()[module["key"]]:
            if attribute["type"] not in ("1", "2"):
                continue
            keyword = attribute["keyword"]
            for item in _items(dataset, attribute["path"]):
                if keyword not in item or (attribute["type"] == "1" and item[keyword].is_empty):
                    lacking.append(".".join([*attribute["path"], keyword]))
    return lacking


def _items(dataset, path):
    items = [dataset]
    for keyword in path:
        items = [inner for item in items for inner in item.get(keyword) or []]
    return items
