"""What may stand where a file is expected: pipes, sockets, devices, loops of links, links to nothing."""

import os
import socket
from pathlib import Path


def write_odd_files(folder: Path) -> dict[str, str]:
    """Files `<kind>.jpg` that are no regular files; what an error must say of each, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / "pipe.jpg")
    here = Path.cwd()
    os.chdir(folder)  # the address of a socket holds 100 characters
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.jpg")
    finally:
        os.chdir(here)
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "loop.jpg").symlink_to(folder / "loop2.jpg")
    (folder / "loop2.jpg").symlink_to(folder / "loop.jpg")
    (folder / "nothing.jpg").symlink_to(folder / "gone")
    loop = "a loop of links"
    return {
        "pipe.jpg": "is a pipe", "socket.jpg": "is a socket", "device.jpg": "is a device", "loop.jpg": loop,
        "loop2.jpg": loop, "nothing.jpg": "No such file",
    }  # fmt: skip
