"""Another card for a public name, tried with a part of the requests, and what decides about it."""
