"""The proof that nothing leaves: read from the kernel, tried from inside, judged, signed."""
