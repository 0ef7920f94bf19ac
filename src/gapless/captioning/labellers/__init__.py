"""Models that label the findings of a report, one module each; their weights lie in a local directory of the user's."""
