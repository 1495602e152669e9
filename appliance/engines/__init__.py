"""The programs that run models: started, sealed, watched, swapped, ended."""
