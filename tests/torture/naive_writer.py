"""The control of the kills: a writer as many are written."""

import os
import time


def write_naively(out: str) -> None:
    """Files under their final names, piece by piece; a directory that is there is taken for finished."""
    if os.path.isdir(out):
        return
    os.mkdir(out)
    for number in range(8):
        with open(f"{out}/shard-{number}", "wb") as stream:
            for piece in range(8):
                stream.write(bytes([piece]) * 512)
                stream.flush()
                time.sleep(0.004)
