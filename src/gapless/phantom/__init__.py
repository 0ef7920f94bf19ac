"""The phantom: synthetic radiology data, images drawn with numpy and captions written by a grammar.

`cases` draws the content of a figure at random, `anatomy` and `findings` draw its image, `acquisition` applies the look
of an X-ray or a CT, `captions` writes its caption and `waveform` its third modality.
"""
