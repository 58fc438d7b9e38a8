"""Load tests of the servers, by the command ``make load``."""
