"""Set up a virtual environment for this checkout.

`make` runs this script; without make:

    python scripts/set_up.py [--venv FOLDER] [--app | --dev]

The script uses only the standard library and the syntax of Python 3.6, so that an old Python can
report the supported versions. The checkout may be read-only, HOME may be unset, and paths may
contain spaces.
"""

import argparse
import hashlib
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST, NEWEST = (3, 10), (3, 14)  # as in pyproject.toml
APP = ".[app]"
DEVELOPMENT = ".[data,notebook,judge,app,dev,ray,slurm]"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--venv",
        default=os.path.join(ROOT, ".venv"),
        help="folder of the environment (default: .venv)",
    )
    parser.add_argument(
        "--app", action="store_true", help="also install the packages of the page in the browser"
    )
    parser.add_argument(
        "--dev", action="store_true", help="also install these, and the packages for lint and tests"
    )
    arguments = parser.parse_args()
    venv = os.path.abspath(arguments.venv)
    check_version(sys.version_info[:2], sys.executable)
    python = python_of(venv)
    if not works(python, "import pip"):
        run([sys.executable, "-m", "venv", venv], "on Debian and Ubuntu: apt install python3-venv")
    version = (
        subprocess.check_output([python, "-c", "import sys; print(*sys.version_info[:2])"])
        .decode()
        .split()
    )
    check_version(tuple(map(int, version)), python)
    names = [".set-up", ".set-up-app", ".set-up-dev"]  # each includes those before it
    targets = ["-r", "requirements.txt"]
    number = 1
    if arguments.dev:
        targets = ["-e", DEVELOPMENT]
        number = 3
    elif arguments.app:
        targets = ["-e", APP]
        number = 2
    stamps = [os.path.join(venv, name) for name in names[:number]]
    wanted = fingerprint(version)
    if os.path.exists(stamps[-1]) and read(stamps[-1]) == wanted:
        return
    announce(works(python, "import torch"), arguments.dev)
    install(python, venv, targets)
    for stamp in stamps:
        with open(stamp, "w") as file:
            file.write(wanted)


def check_version(version, where):
    if not OLDEST <= version <= NEWEST:
        oldest, newest, this = (
            ".".join(map(str, numbers)) for numbers in (OLDEST, NEWEST, version)
        )
        sys.exit(
            f"error: Python {oldest} to {newest} is required, this is {this} ({where}); choose "
            f"another Python with make PYTHON=python{newest}, or another environment with make "
            "VENV=FOLDER"
        )


def python_of(venv):
    return (
        os.path.join(venv, "Scripts", "python.exe")
        if os.name == "nt"
        else os.path.join(venv, "bin", "python")
    )


def works(python, statement):
    """Whether the interpreter exists and runs a statement."""
    try:
        return subprocess.call([python, "-c", statement], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def fingerprint(version):
    """Hash what determines the environment: path of the checkout, requirements, Python."""
    files = [
        read(os.path.join(ROOT, name))
        for name in ("requirements.txt", "pyproject.toml", "setup.py")
    ]
    return hashlib.sha256(
        "\0".join([ROOT, *version, *files]).encode("utf-8", "surrogateescape")
    ).hexdigest()


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def announce(has_torch, development):
    print("Setting up the Python environment.", flush=True)
    if not has_torch:
        print(
            "On an x86 Linux machine this downloads 2.9 GB (5.6 GB on disk); 2.7 GB of them are "
            "PyTorch for NVIDIA GPUs. To use the build for CPUs instead, interrupt with Ctrl-C and "
            "see the README.",
            flush=True,
        )
    elif development:
        print("This downloads the packages for lint and tests: about 0.4 GB.", flush=True)


def install(python, venv, targets):
    """Run pip without files in the checkout or in a missing home folder."""
    environment = dict(os.environ)
    extra = os.path.join(venv, ".setuptools.cfg")
    with open(
        extra, "w", encoding="utf-8"
    ) as file:  # otherwise setuptools writes into the checkout
        file.write("[egg_info]\negg_base = {}\n".format(venv.replace("%", "%%")))
    environment["DIST_EXTRA_CONFIG"] = extra
    if os.path.expanduser("~") == "~":  # otherwise pip creates a folder named ~
        environment["PIP_NO_CACHE_DIR"] = "1"
    # Python compiles what it imports; pip would compile all of some 20,000 modules.
    options = ["--disable-pip-version-check", "--no-compile"]
    run(
        [python, "-m", "pip", "install", *options, *targets],
        "see pip's message above",
        environment,
    )


def run(command, hint, environment=None):
    status = subprocess.call(command, cwd=ROOT, env=environment)
    if status:
        sys.exit(f"error: {' '.join(command)} failed: {hint}")


if __name__ == "__main__":
    main()
