"""The page at `/ui/`: files that a browser shows without a build step or the internet, and how they are served."""
