"""layers.py DIRECTORY VERSION...: the layers of images of panda-server, without any container engine.

base.tar: Debian packages as apt resolves and verifies them, unpacked. The first VERSION.tar lies over it: panda-server of PyPI in a
virtual environment at /srv/panda, as an ordinary user builds it. Each further VERSION.tar lies over both: what pip changes there.
Runs as root on the Debian that the images are of: modules are compiled against its Apache and its Python.
"""
import os
import pathlib
import stat
import subprocess
import sys
import tarfile

PACKAGES = ["dash", "coreutils", "python3.11", "libpython3.11", "apache2-bin", "libpq5", "media-types"]
NOBODY = 65534


def run(*command, **more):
    subprocess.run([str(word) for word in command], check=True, **more)


def base(place):
    """Every package that one needs, from nothing on; no script of a package runs."""
    status, archives, root = place / "status", place / "archives", place / "root"
    (archives / "partial").mkdir(parents=True)
    root.mkdir()
    status.touch()
    run(
        "apt-get", "--quiet", "--quiet", "--yes", "--download-only", "--no-install-recommends",
        "-o", f"Dir::State::status={status}", "-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1",
        "install", *PACKAGES,
    )
    for archive in sorted(archives.glob("*.deb")):
        run("dpkg-deb", "--extract", archive, root)
    for directory in ("tmp", "mnt", "srv", "config", "secrets"):
        (root / directory).mkdir(exist_ok=True)
    (root / "etc/passwd").write_text(f"root:x:0:0::/:/bin/sh\nnobody:x:{NOBODY}:{NOBODY}::/nonexistent:/bin/false\n")
    (root / "etc/group").write_text(f"root:x:0:\nnogroup:x:{NOBODY}:\n")


def pip(srv, script):
    """What is below srv, seen at /srv by whoever runs the script. The package's build hook posts to a chat unless DISABLE_MM is set."""
    srv.joinpath("tmp").mkdir(exist_ok=True)
    for path in (srv, srv / "tmp"):
        os.chown(path, NOBODY, NOBODY)
    inner = 'mount --bind "$1" /srv; cd /srv; exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -euc "$2" sh "$3"'
    environment = {**os.environ, "HOME": "/srv/tmp", "TMPDIR": "/srv/tmp", "DISABLE_MM": "1", "VIRTUAL_ENV": "/srv/panda"}
    run("unshare", "--mount", "--propagation", "private", "--", "sh", "-euc", inner, "sh", srv, *script, env=environment)


INSTALL = '/srv/panda/bin/pip install --quiet "panda-server[postgres]==$1"; echo "$1" >/srv/panda/version'


def whiteouts(directory, names):
    """What overlayfs says of what is gone (a device 0:0, a mark on a directory), as the specification of OCI images has it."""
    for name in names:
        status = os.lstat(directory / name)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            yield name, f".wh.{name}"
        elif stat.S_ISDIR(status.st_mode):
            try:
                if os.getxattr(directory / name, "trusted.overlay.opaque") == b"y":
                    yield None, f"{name}/.wh..wh..opq"
            except OSError:
                pass


def layer(tar, source, target):
    """All below source, as target in the image, owned by root."""

    def owned(member):
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(f"{tar}.new", "w", format=tarfile.GNU_FORMAT) as written:
        for directory, directories, names in os.walk(source):
            directories.sort()
            there = pathlib.Path(directory)
            inside = os.path.join(target, there.relative_to(source))
            gone = list(whiteouts(there, directories + names))
            for name in sorted(directories + names):
                if name not in (name for name, _ in gone):
                    written.add(there / name, os.path.normpath(f"./{inside}/{name}"), recursive=False, filter=owned)
            for _, mark in gone:
                written.addfile(tarfile.TarInfo(os.path.normpath(f"./{inside}/{mark}")))
    os.rename(f"{tar}.new", tar)


def main(place, first, *others):
    place = pathlib.Path(place).absolute()
    base(place)
    layer(place / "base.tar", place / "root", "")
    lower = place / "srv"
    lower.mkdir()
    pip(lower, ["/usr/bin/python3.11 -m venv /srv/panda; /srv/panda/bin/pip install --quiet --upgrade pip; " + INSTALL, first])
    layer(place / f"{first}.tar", lower / "panda", "srv/panda")
    for version in others:
        over = place / version
        for part in ("upper", "work", "srv"):
            (over / part).mkdir(parents=True)
        run(
            "mount", "-t", "overlay", "overlay",
            "-o", f"lowerdir={lower},upperdir={over}/upper,workdir={over}/work", over / "srv",
        )
        try:
            pip(over / "srv", [INSTALL, version])
        finally:
            run("umount", over / "srv")
        layer(place / f"{version}.tar", over / "upper/panda", "srv/panda")
    # The layers are what is kept.
    run("rm", "-rf", *(place / name for name in ("status", "archives", "root", "srv", *others)))


main(*sys.argv[1:])
