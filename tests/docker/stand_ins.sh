#!/usr/bin/env bash
# For machines that reach Debian's mirror and a package index, but no image registry: starts a Docker engine of its
# own under FOLDER and makes look-alikes of the base images (Debian's packages, and a CPython of this machine).
# Elsewhere nothing of this is needed: the tests use the engine that is there and pull the real images.
#
#   sudo apt-get install docker.io runc containerd iptables debootstrap
#   sudo tests/docker/stand_ins.sh FOLDER PYTHON_PREFIX     then: export DOCKER_HOST=unix://FOLDER/docker.sock DOCKER_BUILDKIT=1
#   sudo tests/docker/stand_ins.sh FOLDER stop
set -euo pipefail
folder=$(realpath -m "$1") python=$2 here=$(dirname "$(realpath "$0")")
export DOCKER_HOST=unix://$folder/docker.sock DOCKER_BUILDKIT=1
docker=/usr/bin/docker
mkdir -p "$folder"

stop_engine() {
  kill "$(cat "$folder/docker.pid")"
  while [ -e "$folder/docker.pid" ]; do sleep 0.2; done
  ip link delete docker0 2>/dev/null || true
  iptables -P FORWARD ACCEPT
}

start_engine() {
  setsid dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/docker.pid" \
    -H "$DOCKER_HOST" >"$folder/dockerd.log" 2>&1 &
  for _ in $(seq 100); do $docker version >/dev/null 2>&1 && return; sleep 0.2; done
  tail "$folder/dockerd.log" >&2
  return 1
}

# One root for all: what the real images hold, as far as the stack uses it.
make_root() {
  local root=$folder/root packages=ca-certificates,libssl3,libffi8,libsqlite3-0,libbz2-1.0,liblzma5,libreadline8
  packages+=,zlib1g,libuuid1,libncursesw6,libexpat1,redis-server,postgresql,netcat-openbsd
  [ -d "$root" ] || debootstrap --variant=minbase --include="$packages" bookworm "$root"
  # This machine's own certificates, where its network asks for them.
  cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
  chroot "$root" update-ca-certificates >/dev/null
  tar -C "$root" -c . | $docker import - stand-in >/dev/null
}

build() { # TAG CONTEXT, Dockerfile on standard input
  $docker build -q -t "$1" -f - "$2" >/dev/null
  echo "made a stand-in for $1"
}

make_python() {
  tar -C "$python" --exclude=test --exclude='*.a' --exclude=__pycache__ -c bin include lib | tar -C "$folder/python" -x
  build "python:$version-slim-bookworm" "$folder/python" <<'EOF'
FROM stand-in
COPY . /usr/local
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt
RUN ln -sf python3 /usr/local/bin/python && ldconfig
EOF
}

with_python() { # TAG ENTRYPOINT PACKAGES: what an image of Python packages holds
  build "$1" "$folder/rclone" <<<"FROM python:$version-slim-bookworm
RUN python -m pip install --no-cache-dir --disable-pip-version-check $3
ENTRYPOINT $2"
}

if [ "$python" = stop ]; then stop_engine; exit; fi
version=$("$python/bin/python3" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
$docker version >/dev/null 2>&1 || start_engine
make_root
mkdir -p "$folder/python" "$folder/rclone" && make_python
cp "$here/../../.venv/bin/rclone" "$folder/rclone/"
build rclone/rclone:1 "$folder/rclone" <<<$'FROM stand-in\nCOPY rclone /usr/local/bin/\nENTRYPOINT ["rclone"]'
build redis:7-alpine "$folder/rclone" <<<'FROM stand-in'
build postgres:17-alpine "$here" <<<$'FROM stand-in\nCOPY stand_in_postgres.sh /\nENTRYPOINT ["/stand_in_postgres.sh"]'
with_python motoserver/moto:5.2.5 '["moto_server", "-H", "0.0.0.0"]' "moto[server,s3,sqs]==5.2.5"
with_python mher/flower:2.0 '[]' "flower==2.0.* celery[redis]"
