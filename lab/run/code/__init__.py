"""The state of the code: which files it is, their repositories and patches, and a digest of each package."""
