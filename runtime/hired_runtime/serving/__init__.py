"""`hired-edge serve`: an OpenAI-compatible server over one opened bundle, and a page to look at. The `serve` extra."""
