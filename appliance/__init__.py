"""A local-first inference appliance: open-weight models behind one door that stays shut."""

__version__ = "0.1.0"
