"""The embedded default data: procedural radiology, drawn with numpy, described by a grammar.

`cases` decides what a figure shows, `anatomy` and `findings` draw it, `acquisition` makes it look like an X-ray or a
CT, `captions` describes it and `waveform` gives its third modality.
"""
