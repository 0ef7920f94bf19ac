"""Names in the files of caption scores, for the code that writes and reads them; this module imports nothing."""

KIND = "captions"  # the entry `kind` of results.json
SAMPLES = "samples.json"
NEAREST = "nearest train caption"  # the name of a baseline
OWN_ENCODERS = "its own encoders"  # the entry `judge` of a run without another judge
