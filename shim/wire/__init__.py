"""The wire contract's message classes, generated from `protos/` by `make proto` (nothing here is written by hand)."""
