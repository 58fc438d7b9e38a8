"""What `make measure NAME=load` serves and how it asks."""
