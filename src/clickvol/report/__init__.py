"""Numbers, tests, figures and a page from the table of an evaluation."""
