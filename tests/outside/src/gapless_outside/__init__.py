"""One thing for each door of gapless, from a package that gapless knows nothing of."""
