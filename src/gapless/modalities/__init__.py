"""Kinds of modalities, one file each: how an image, a text or a row of numbers is checked, read, prepared and shown."""
