"""A machine for tests: a real systemd as process 1, in namespaces of its own, on a throw-away copy of this file system.

Standard library only, and loaded by path (`tests` is no package here), so nothing of the project is imported.

What keeps it from touching the host, which matters because systemd cleans folders, mounts things and writes kernel settings at start:

- its own mount namespace, whose root is an overlay of `/` with a tmpfs above: every write lands in memory. `pivot_root`, not `chroot`, so
  that the host's own tree is not reachable at all, and a command that enters the namespace cannot see it by mistake;
- fresh /run, /tmp and /dev (six device nodes), /sys and /proc/sys read-only;
- its own process namespace, so that it can end only what it started; killing its process 1 ends everything in it, and the kernel then
  drops its mounts. `--kill-child` and a parent-death signal do so as well when the test run itself is killed;
- its own control group and cgroup namespace; its own IPC and host name. The network is the host's: a broker on loopback is reachable;
- no generators and no unit that the host enables: it boots to a target of its own with nothing but the journal.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

PREFIX = "/opt/dwcp-learner"
SETUP = Path(__file__).with_name("setup.sh")
LIMIT_S = 600.0  # for anything that is waited for; a training takes 30 s on an idle machine, all else a second or two
SYSTEMD = next((path for path in (Path("/usr/lib/systemd/systemd"), Path("/lib/systemd/systemd")) if path.exists()), None)
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UNSHARE = ("unshare", "-m", "-p", "-f", "-u", "-i", "-C", "--mount-proc", "--propagation", "private")
TOOLS = ("unshare", "nsenter", "setpriv", "pivot_root", "mount", "systemctl", "journalctl", "systemd-sysusers", "ldconfig")

# Process 1 of a machine needs a target; the journal is all that it starts.
TARGET = """[Unit]
Description=Machine for tests
DefaultDependencies=no
Requires=systemd-journald.socket systemd-journald.service
After=systemd-journald.socket systemd-journald.service
AllowIsolate=yes
"""
# Kernel messages and the audit switch are the host's.
JOURNALD = "[Journal]\nStorage=volatile\nAudit=\nReadKMsg=no\nForwardToSyslog=no\nForwardToWall=no\nRateLimitIntervalSec=0\n"


class MachineError(RuntimeError):
    """The machine could not be built, or a command in it failed."""


def unavailable() -> str | None:
    """Return the reason why no machine can be started here, or None. Nothing is started: a refused overlay shows only at the boot."""
    if os.geteuid() != 0:
        return "needs root, for namespaces and mounts"
    if SYSTEMD is None:
        return "needs systemd (/usr/lib/systemd/systemd)"
    missing = [tool for tool in TOOLS if shutil.which(tool, path=_host_path()) is None]
    if missing:
        return f"needs the commands {', '.join(missing)} (util-linux, systemd)"
    if "overlay" not in Path("/proc/filesystems").read_text().split():
        return "needs a kernel with overlayfs"
    probe = subprocess.run(
        [*UNSHARE, "mount", "-t", "tmpfs", "probe", "/mnt"],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    if probe.returncode != 0:
        return f"may not create namespaces and mounts here (a container needs --privileged): {probe.stderr.strip()}"
    if _cgroup2_mount() is None:
        return "needs a cgroup2 hierarchy mounted and writable"
    return None


class Machine:
    """A booted systemd. `with Machine(source, files={...}) as machine: machine.systemctl("start", "x.service")`.

    source: the checkout, seen inside at /opt/dwcp-learner/src; bin/dwcp-learner and bin/python of /opt/dwcp-learner run it with the
    interpreter and the packages of the test run. files: absolute path inside -> content, written before the boot.

    The unit hides /root and /home and has a /tmp of its own, and that is just where a checkout and an interpreter may lie (pyenv, a
    user's folder). So they are bound read-only below /opt/dwcp-learner, where an installation would be, rather than the unit weakened.
    """

    def __init__(self, source: Path, files: Mapping[str, str] | None = None) -> None:
        self._source = source.resolve()
        self._files = dict(files or {})
        self._base: Path | None = None
        self._cgroup: Path | None = None
        self._unshare: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None
        self._pid = 0

    def __enter__(self) -> Machine:
        try:
            self._boot()
        except BaseException:
            self._tear_down()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._tear_down()

    def run(
        self, command: str | list[str], *, timeout_s: float = LIMIT_S, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root; a str is given to sh. Raises MachineError if it fails and `check` is set."""
        inside = ["sh", "-c", command] if isinstance(command, str) else command
        enter = ["nsenter", "--target", str(self._pid), "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--"]
        done = subprocess.run(
            # nsenter keeps the working folder, which is the host's.
            [*enter, "sh", "-c", 'cd / && exec "$@"', "sh", *inside],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            input=stdin,
            env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": "cat"},
        )
        if check and done.returncode != 0:
            raise MachineError(f"{shlex.join(inside)} exited with {done.returncode} in the machine:\n{done.stdout}{done.stderr}")
        return done

    def systemctl(self, *arguments: str, timeout_s: float = LIMIT_S) -> str:
        """stdout of systemctl; on failure the error ends with the unit's journal."""
        done = self.run(["systemctl", *arguments], timeout_s=timeout_s, check=False)
        if done.returncode != 0:
            units = [argument for argument in arguments if argument.endswith(".service")]
            logs = "\n".join(self.journal(unit) for unit in units)
            raise MachineError(f"systemctl {shlex.join(arguments)} exited with {done.returncode}: {done.stdout}{done.stderr}\n{logs}")
        return done.stdout

    def property(self, unit: str, name: str) -> str:
        """Return a property of a unit, as `systemctl show` prints it."""
        return self.systemctl("show", "--value", "--property", name, unit).strip()

    def journal(self, unit: str) -> str:
        """Return what the unit, and systemd about it, have written, oldest first, without time stamps."""
        self.run(["journalctl", "--sync"], check=False)
        return self.run(["journalctl", "--unit", unit, "--output", "cat", "--no-pager"]).stdout

    def wait_until(self, condition: Callable[[], bool], what: str, *, timeout_s: float = LIMIT_S, unit: str | None = None) -> None:
        """Poll until the condition holds. Raises MachineError naming `what`, with the unit's state and journal, after the time-out."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                state = f"\n{self.run(['systemctl', 'status', unit], check=False).stdout}\n{self.journal(unit)}" if unit else ""
                raise MachineError(f"not within {timeout_s:g} s: {what}{state}")
            time.sleep(0.1)

    def write_file(self, path: str, content: str) -> None:
        """Write a file inside, making its folder. Through a process inside: from outside an absolute link would lead to the host."""
        self.run(f"mkdir -p {shlex.quote(str(Path(path).parent))} && cat > {shlex.quote(path)}", stdin=content)

    def read_file(self, path: str) -> str:
        """Return the content of a file inside. Raises MachineError if there is none."""
        return self.run(["cat", path]).stdout

    def _boot(self) -> None:
        name = f"dwcp-machine-{secrets.token_hex(4)}"
        self._base = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self._log = Path(tempfile.mkstemp(prefix=f"{name}-", suffix=".log")[1])
        mount = _cgroup2_mount()
        if mount is None or SYSTEMD is None:
            raise MachineError(unavailable() or "no cgroup2 hierarchy")
        self._cgroup = mount / name
        self._cgroup.mkdir()
        # The group is entered before the cgroup namespace is made, which then has it as its root.
        enter = 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"'
        # As text: the file itself may lie where the new root does not reach.
        setup = ["sh", "-c", SETUP.read_text(), "sh", str(self._base), str(SYSTEMD), self._files_script()]
        with self._log.open("wb") as log:
            self._unshare = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "sh", "-c", enter, "sh", str(self._cgroup), *UNSHARE, "--kill-child", *setup],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"PATH": _host_path()},
            )
        self._wait_for_systemd()

    def _files_script(self) -> str:
        """Shell for setup.sh that puts the project, the interpreter, the packages and the files into the new root."""
        packages = sysconfig.get_path("purelib")
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        own = f"{PREFIX}/lib/{version}/site-packages"
        lines = [f"mkdir -p {PREFIX}/bin"]
        for host, inside in ((sys.base_prefix, "python"), (packages, "packages"), (self._source, "src")):
            lines += [
                f"mkdir -p {PREFIX}/{inside}",
                f"mount --bind /.host{shlex.quote(str(Path(host).resolve()))} {PREFIX}/{inside}",
                f"mount -o remount,bind,ro {PREFIX}/{inside}",
            ]
        files = {
            # A virtual environment as `python -m venv /opt/dwcp-learner` would make it, so that sys.executable and its children need no
            # environment variable; only its packages are elsewhere. Lines of a .pth file are added to sys.path.
            f"{PREFIX}/pyvenv.cfg": f"home = {PREFIX}/python/bin\ninclude-system-site-packages = false\n",
            f"{own}/machine.pth": f"{PREFIX}/packages\n{PREFIX}/src\n",
            f"{PREFIX}/bin/dwcp-learner": f"#!{PREFIX}/bin/python\nimport sys\nfrom daemon.cli import main\nsys.exit(main())\n",
            # An interpreter built with a shared library looks for it at its old place, which the unit hides.
            "/etc/ld.so.conf.d/dwcp-learner-python.conf": f"{PREFIX}/python/lib\n",
            "/etc/systemd/system/machine.target": TARGET,
            "/etc/systemd/journald.conf": JOURNALD,
            **self._files,
        }
        for path, content in files.items():
            lines += [f"mkdir -p {shlex.quote(str(Path(path).parent))}", f"printf %s {shlex.quote(content)} > {shlex.quote(path)}"]
        lines += [f"chmod 755 {PREFIX}/bin/dwcp-learner", f"ln -s {PREFIX}/python/bin/{version} {PREFIX}/bin/python", "ldconfig"]
        return "\n".join(lines)

    def _wait_for_systemd(self) -> None:
        deadline_s = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline_s:
            process = self._unshare
            if process is None or process.poll() is not None:
                raise MachineError(f"the machine died while it was being built: {self._said()}")
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            # While it is still the set-up script, its root is the host's: nothing may be run in it then.
            if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
                self._pid = int(children[0])
                if self.run(["systemctl", "is-active", "machine.target"], check=False).returncode == 0:
                    return
            time.sleep(0.1)
        raise MachineError(f"systemd did not reach its target within {LIMIT_S:g} s: {self._said()}")

    def _said(self) -> str:
        return self._log.read_text(errors="replace").strip() if self._log else ""

    def _tear_down(self) -> None:
        """Kill everything, and remove the folder, the log and the control group. Mounts go with the namespace."""
        if self._unshare is not None:
            # Killing unshare kills its child, process 1, and with it the whole process namespace.
            self._unshare.send_signal(signal.SIGKILL)
            self._unshare.wait(timeout=LIMIT_S)
        if self._cgroup is not None and self._cgroup.exists():
            kill = self._cgroup / "cgroup.kill"  # kernel 5.14; without it the death of process 1 has to do
            if kill.exists():
                kill.write_text("1")
            _remove_cgroup(self._cgroup, timeout_s=LIMIT_S)
        if self._base is not None:
            shutil.rmtree(self._base)
        if self._log is not None:
            self._log.unlink(missing_ok=True)


def _host_path() -> str:
    """Return the folders of this host's commands: a user's PATH often lacks those of the administrator."""
    return f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"


def _cgroup2_mount() -> Path | None:
    """Return where the unified hierarchy is mounted and writable: /sys/fs/cgroup, or .../unified on a host with both generations."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ", 1)
        if right.split()[0] == "cgroup2" and "rw" in left.split()[5].split(","):
            return Path(left.split()[4])
    return None


def _remove_cgroup(root: Path, timeout_s: float) -> None:
    """Remove a control group and those below it, once the last process has left. Raises MachineError after the time-out."""
    deadline_s = time.monotonic() + timeout_s
    while root.exists():
        for folder, _, _ in os.walk(root, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:
                break  # a process in it is still dying
        else:
            return
        if time.monotonic() > deadline_s:
            raise MachineError(f"processes are left in {root}: {(root / 'cgroup.procs').read_text()}")
        time.sleep(0.05)
