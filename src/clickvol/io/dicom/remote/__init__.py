"""Scans in an archive of DICOM (a PACS), and masks into one."""
