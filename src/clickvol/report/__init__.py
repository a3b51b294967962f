"""Tables, figures and tests from the records of an evaluation."""
