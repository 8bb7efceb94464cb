"""File systems that are full when a test wants it."""

import contextlib
import os
import shutil
import subprocess


@contextlib.contextmanager
def small_disk(cluster, name, size):
    """A file system of so many bytes in a directory of the cluster's."""
    disk = cluster.storage / name
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


class WalDisk:
    """A file system of its own for a cluster's pg_wal, which `fill` leaves no room on and `free` does again."""

    def __init__(self, cluster, disk):
        self._cluster, self._filler = cluster, disk / "filler"
        cluster.control("stop", "--mode=fast")
        wal = cluster.dir / "data" / "pg_wal"
        shutil.copytree(wal, disk / "wal")
        subprocess.run(["chown", "--recursive", cluster.user, disk / "wal"], check=True)
        (disk / "wal").chmod(0o700)
        shutil.rmtree(wal)
        wal.symlink_to(disk / "wal")
        cluster.start()

    def fill(self):
        with self._filler.open("wb") as filler:
            room = os.statvfs(self._filler)
            if size := room.f_bavail * room.f_frsize:
                os.posix_fallocate(filler.fileno(), 0, size)

    def free(self):
        self._filler.unlink(missing_ok=True)
