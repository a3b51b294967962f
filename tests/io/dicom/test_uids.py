import pydicom

from clickvol.io.dicom.uids import hashed_uid, new_uid, remapped_uid


def test_they_are_valid_and_new_or_the_same():
    for uid in (new_uid(), hashed_uid("a"), remapped_uid("1.2.3")):
        assert pydicom.uid.UID(uid).is_valid
        assert uid.startswith("2.25.")
    assert new_uid() != new_uid()
    assert hashed_uid("a") == hashed_uid("a") != hashed_uid("b")


def test_the_rule_is_fixed():
    """Files of different days and machines fit together only while this stays."""
    assert remapped_uid("1.2.3") == "2.25.78144208143221603292889693913357767992"


def test_what_the_standard_names_keeps_its_name():
    assert remapped_uid("1.2.840.10008.5.1.4.1.1.2") == "1.2.840.10008.5.1.4.1.1.2"
