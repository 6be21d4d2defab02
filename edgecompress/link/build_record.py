"""What an image is compiled with, written into image.json so that a measurement can name it."""

from __future__ import annotations

from importlib import metadata

from edgecompress.link.toolchain import compiler_flags
from edgecompress.records import Build
from edgecompress.target.schema import DeviceProfile

_PACKAGES = ("edgecompress", "apache-tvm", "apache-tvm-ffi", "ziglang")


def describe_build(profile: DeviceProfile) -> Build:
    """The compilers of this installation and the flags they get for a device.

    `flags` are zig cc's for C, then LLVM's target of TVM's kernels as "llvm:key=value".
    """
    llvm = [f"llvm:{key}={value}" for key, value in sorted(profile.toolchain.llvm.items())]
    versions = package_versions(_PACKAGES)
    return Build(
        compiler=f"zig cc {versions.get('ziglang', '')}".rstrip(),
        flags=(*compiler_flags(profile), *llvm),
        versions=versions,
    )


def package_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Installed versions; what is not installed is left out."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
