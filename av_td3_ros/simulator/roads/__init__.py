"""Roads: drawn from a seed, written as OpenDRIVE, turned into lines to paint."""
