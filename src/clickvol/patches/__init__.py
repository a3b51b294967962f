"""Stage 3: the part of the patient that a model looks at, and the way back to the scan's grid."""
