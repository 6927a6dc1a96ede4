"""From a name or a folder to a pair of models that were checked against each other."""
