"""`python -m gapless`."""

import sys

from gapless.cli.main import main

sys.exit(main())
