# Installs the pinned uv into .cache/uv and sets $uv to its path. Other scripts source this file in the repository's root.

say() { printf 'segpipe: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

uv=.cache/uv/bin/uv
if ! "$uv" --version 2>/dev/null | grep -qF "$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements/bootstrap.txt)"; then
    command -v python3 >/dev/null || fail "python3 not found on the PATH. Install it: apt-get install python3-venv"
    say "installing the installer (uv, 25 MB) into .cache/uv"
    python3 -m venv --clear .cache/uv >/dev/null 2>&1 ||
        fail "python3 cannot make an environment. Install what it needs: apt-get install python3-venv"
    .cache/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/bootstrap.txt ||
        fail "could not install uv: see pip's message above; pip reads the index and proxy from pip.conf and its environment variables"
fi
# Use the system's certificates, for networks with their own CA certificate.
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || export UV_SYSTEM_CERTS=true
