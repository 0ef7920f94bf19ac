"""One module per layout; each is a generator of raw rows and a function that builds the manifest from them."""
