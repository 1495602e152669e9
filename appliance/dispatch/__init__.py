"""Where a request is answered, and how the answer gets back."""
