"""Waveforms and sounds: WFDB, EDF, DICOM waveforms, WAV, FLAC and .npy files as channels of physical values."""
