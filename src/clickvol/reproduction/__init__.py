"""A published table again: from the raw data sets to our numbers beside the paper's."""
