"""Packages of JavaScript from npm: fetched once, checked, kept in build/npm."""
import hashlib
import shutil
import subprocess
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / "build/npm"


def fetch(package: str, sha512: str) -> Path:
    """The archive of a package, "name-version"; RuntimeError that says what is missing.
    """
    archive = CACHE / f"{package}.tgz"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError(f"npm (Node.js) is needed once, to fetch {package}; or "
                               f"put {archive} there yourself")
        wanted = "@".join(package.rsplit("-", 1))
        done = subprocess.run([npm, "pack", wanted, "--silent"], cwd=archive.parent,
                              capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip()[:300]
            raise RuntimeError(f"npm pack {wanted} failed: {said}")
    if hashlib.sha512(archive.read_bytes()).hexdigest() != sha512:
        archive.unlink()
        raise RuntimeError(f"{archive.name} is not the file that was tested here "
                           "(sha512 differs); it was deleted")
    return archive
