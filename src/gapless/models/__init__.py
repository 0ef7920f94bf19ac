"""Models: encoders of the field, heads on them, and the aligner that puts every modality into one unit-norm space."""
