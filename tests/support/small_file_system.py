"""File systems of a test's own, which it may fill, break and take away."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
from pathlib import Path

CLONE_NEWNS = 0x00020000
EXT4_IOC_SHUTDOWN = 0x8004587D
SHUTDOWN_WITHOUT_FLUSH = (2).to_bytes(4, "little")


def mount_namespace() -> str:
    """Gives this process mounts of its own, which end with it; answers why not, or nothing.

    REQUIRES: the process has one thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        return f"no mounts of its own: {os.strerror(ctypes.get_errno())}"
    return run("mount", "--make-rprivate", "/")


def run(*command: str) -> str:
    """Runs a command; answers nothing, or what it said when it failed."""
    if shutil.which(command[0]) is None:
        return f"{command[0]} is not installed"
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return "" if ended.returncode == 0 else f"{' '.join(command)}: {ended.stderr.strip()}"


class SmallFileSystem:
    """An image in ``folder``, mounted beside it.  ``why_not`` says why there is none."""

    def __init__(self, folder: Path, kind: str, mib: int) -> None:
        self.path = folder / "mounted"
        self.path.mkdir()
        self._image = folder / "image"
        if kind == "tmpfs":
            self.why_not = run("mount", "-t", kind, "-o", f"size={mib}m", "none", str(self.path))
            return
        with self._image.open("wb") as image:
            image.truncate(mib << 20)
        self.why_not = run(f"mkfs.{kind}", "-q", "-m", "0", str(self._image)) or self.mount("rw")
        self.path.chmod(0o700)

    def mount(self, how: str) -> str:
        """Mounts the image, "rw" or "ro"; answers nothing, or why not."""
        options = f"loop,{how},errors=remount-ro"
        why_not = run("mount", "-o", options, str(self._image), str(self.path))
        # A loop device that was made read-only, and is still held, is mounted so whatever is asked.
        if why_not == "" and how == "rw" and os.statvfs(self.path).f_flag & os.ST_RDONLY:
            self.unmount()
            why_not = "it is read-only still"
        return why_not

    def unmount(self) -> None:
        """Takes it away; what is open goes on."""
        run("umount", "--lazy", str(self.path))

    def remove(self) -> None:
        """Takes it away for good."""
        self.unmount()
        self._image.unlink(missing_ok=True)

    def fill(self) -> None:
        """Takes all the room there is."""
        with (self.path / "ballast").open("wb", buffering=0) as ballast:
            piece = bytes(1 << 20)
            try:
                while ballast.write(piece) == len(piece):
                    pass
            except OSError:
                return

    def make_room(self) -> None:
        """Gives back what fill took."""
        (self.path / "ballast").unlink()

    def fail(self) -> None:
        """Makes the kernel find it damaged: it becomes read-only under who has files open."""
        device = os.stat(self.path).st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("test")

    def yank(self) -> None:
        """Every read and write of it fails from now on."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, SHUTDOWN_WITHOUT_FLUSH)
        finally:
            os.close(folder)
