"""Fakes that obey the contracts of ports. A contract suite runs on each fake and on the real thing."""
