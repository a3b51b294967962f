"""NRRD and MetaImage files, through SimpleITK."""
