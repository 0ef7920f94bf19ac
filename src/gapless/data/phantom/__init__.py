"""The embedded default data: procedural radiology, drawn with numpy, described by a grammar.

`cases` decides what a figure shows, `anatomy` draws it, `acquisition` makes it look like an X-ray, a CT, ...,
`captions` describes it and `waveform` gives its third modality.
"""
