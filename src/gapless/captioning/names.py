"""Names in the files of caption scores, shared by what writes and what reads them; this imports nothing."""

KIND = "captions"  # of results.json
SAMPLES = "samples.json"
NEAREST = "nearest train caption"  # a baseline
OWN_ENCODERS = "its own encoders"  # the judge of a run that was given no other
