"""Volumes: NIfTI files, DICOM series and .npy arrays, in one orientation and on one grid."""
