"""What a class needs beside the decoder: famous bugs as switchable parts."""
