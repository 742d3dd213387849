"""Making, opening, restricting and destroying keys, a batch at a time and with a bounded number of statements."""
