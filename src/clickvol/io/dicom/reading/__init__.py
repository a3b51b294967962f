"""A folder or a zip of DICOM files to a volume: headers, pixels, geometry."""
