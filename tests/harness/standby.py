"""A physical copy of a cluster, and the programs of PostgreSQL."""

import subprocess
from pathlib import Path

from harness.cluster import SCRIPT, Cluster


def run(*command, user=None, cwd=None):
    prefix = ["runuser", "-u", user, "--"] if user else []
    done = subprocess.run([*prefix, *map(str, command)], capture_output=True, text=True, timeout=240, cwd=cwd or "/")
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done


def pg_ctl(cluster, *action):
    run(cluster.program("pg_ctl"), *action, "--wait", "--silent", f"--pgdata={cluster.dir}/data",
        f"--log={cluster.dir}/log", user=cluster.user)


class Standby:
    """A physical copy of a cluster in a directory like scripts/cluster's."""

    def __init__(self, primary):
        made = subprocess.run(["runuser", "-u", primary.user, "--", "mktemp", "-d", "/var/tmp/archive_ext.XXXXXX"],
                              check=True, capture_output=True, text=True, cwd="/")
        self.dir, self.user, self.pg_config = Path(made.stdout.strip()), primary.user, primary.pg_config
        self.dir.chmod(0o755)
        run(primary.program("pg_basebackup"), "-h", primary.dir, "-U", "postgres", "-D", self.dir / "data",
            "--write-recovery-conf", "--checkpoint=fast", "--no-sync", user=self.user)
        with (self.dir / "data/postgresql.auto.conf").open("a") as settings:
            settings.write(f"unix_socket_directories = '{self.dir}'\n")
        pg_ctl(self, "start")

    connect, log, program = Cluster.connect, Cluster.log, Cluster.program

    def promote(self):
        pg_ctl(self, "promote")

    def stop(self):
        subprocess.run([SCRIPT, "stop", self.dir], check=True, timeout=120)
