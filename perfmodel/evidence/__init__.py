"""How far to believe it: published measurements, calibration, validation and intervals."""
