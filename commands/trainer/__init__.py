"""fit, validate, test and predict: run folders, configuration files, the command line."""
