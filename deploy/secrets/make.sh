#!/bin/sh
# Makes the secrets that docker-compose.yml reads, where they are not there yet. They are never committed.
set -eu
cd "$(dirname "$0")"
umask 022  # the containers' users read them; the folder is for its owner alone
chmod 700 .
[ -s postgres_password ] || head -c 24 /dev/urandom | base64 | tr '+/' '-_' >postgres_password
