"""What every page of gapless shares (report, map, search): templates, colours, a base style."""
