"""NIfTI files by readers and writers of our own, and what nibabel reads besides: pairs, Analyze, MGH."""
