"""What an object can be, in SNOMED CT: terms for DICOM SEG and RTSTRUCT (PS3.16, CID 7150 to 7166)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SegmentTerm:
    """A coded meaning of SNOMED CT, in English, and the kind of thing that it is."""

    code: str
    meaning: str
    category_code: str
    category: str


_ABNORMAL = ("49755003", "Morphologically Abnormal Structure")
_ANATOMICAL = ("123037004", "Anatomical Structure")
_TISSUE = ("85756007", "Tissue")

_MEANINGS = {
    _ABNORMAL: {
        "108369006": "Neoplasm",
        "86049000": "Neoplasm, Primary",
        "14799000": "Neoplasm, Secondary",
        "52988006": "Lesion",
        "4147007": "Mass",
        "27925004": "Nodule",
        "367643001": "Cyst",
        "6574001": "Necrosis",
        "79654002": "Edema",
        "50960005": "Hemorrhage",
    },
    _ANATOMICAL: {
        "59441001": "Lymph node",
        "12738006": "Brain",
        "39607008": "Lung",
        "80891009": "Heart",
        "10200004": "Liver",
        "64033007": "Kidney",
        "78961009": "Spleen",
        "15776009": "Pancreas",
        "69695003": "Stomach",
        "71854001": "Colon",
        "34402009": "Rectum",
        "89837001": "Urinary bladder",
        "41216001": "Prostate",
        "35039007": "Uterus",
        "69748006": "Thyroid gland",
        "23451007": "Adrenal gland",
    },
    _TISSUE: {"272673000": "Bone", "91727004": "Skeletal muscle", "55603005": "Adipose tissue"},
}

TERMS: dict[str, SegmentTerm] = {
    code: SegmentTerm(code, meaning, *category)
    for category, meanings in _MEANINGS.items()
    for code, meaning in meanings.items()
}
"""By their codes."""

NEOPLASM = TERMS["108369006"]
"""What was clicked is taken for a tumour; of which kind nobody said."""
