"""Device profiles: what a target TOML may say, and where they are found."""

from edgecompress.target.registry import load_target, target_names
from edgecompress.target.schema import DeviceProfile

__all__ = ["DeviceProfile", "load_target", "target_names"]
