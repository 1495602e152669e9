"""`appliance audit ...`: verify the log, read it, erase a person, hold what a court wants."""
