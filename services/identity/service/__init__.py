"""Use cases, by noun. Those that hash or call the keyring take `Parts` and open their own short transactions."""
