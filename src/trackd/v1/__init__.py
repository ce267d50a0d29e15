"""Generated from proto/trackd/v1 by `make proto`; not to be edited."""
