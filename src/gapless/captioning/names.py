"""Names in the files of caption scores, shared by what writes and what reads them; this imports nothing."""

KIND = "captions"  # of results.json
SAMPLES = "samples.json"
NEAREST = "nearest train caption"  # a baseline
