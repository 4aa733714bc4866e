"""From a potential and a user's structures to a verdict: the tests within a time, beside rivals, and the rules."""
