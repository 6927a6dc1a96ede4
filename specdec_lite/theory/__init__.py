"""What must be true: closed forms, enumeration of the real loop, statistics."""
