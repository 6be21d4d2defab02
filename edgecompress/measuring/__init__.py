"""A finished image on real and emulated devices: measured, watched, compared, verified."""

from edgecompress.measuring.comparing import compare as compare
from edgecompress.measuring.fleet import find_boards as find_boards
from edgecompress.measuring.fleet import profile_fleet as profile_fleet
from edgecompress.measuring.profiling import profile as profile
from edgecompress.measuring.verifying import verify as verify
from edgecompress.measuring.watching import watch as watch
