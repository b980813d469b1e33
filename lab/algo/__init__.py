"""Algorithms: each a dataclass that is the schema of its file in conf/algo/ and the object that learns."""
