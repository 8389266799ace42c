#!/bin/sh
# Makes deploy/secrets for compose.yaml: a password a server, the URLs that hold them, and the keys of tokens and
# cursors. What exists is left alone. The folder is closed to others; the files in it are readable, because the
# containers' users are not yours.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
cd secrets

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
once() { [ -s "$1" ] || printf '%s\n' "$2" > "$1"; }

for name in nats postgres valkey clickhouse grafana; do once "$name.password" "$(random)"; done
once jwt.secret "$(random)"
once cursor.key "$(random)"
once nats_users.conf "authorization { user: riverrun, password: \"$(cat nats.password)\" }"
once valkey.conf "requirepass $(cat valkey.password)"
once nats.url "nats://riverrun:$(cat nats.password)@nats:4222"
once postgres.url "postgresql://riverrun:$(cat postgres.password)@postgres:5432/riverrun"
once valkey.url "redis://:$(cat valkey.password)@valkey:6379/0"
once clickhouse.url "http://riverrun:$(cat clickhouse.password)@clickhouse:8123/riverrun"
chmod 644 ./*
