#!/bin/sh
# Makes what the compose files read as secrets, where it is not there yet; nothing of it is ever committed.
#
#   deploy/secrets/make.sh           the database's password
#   deploy/secrets/make.sh --tls     and, for deploy/compose.tls.yml, an authority, certificates, tokens and NATS passwords
#
# The authority's key, which only this script needs, is in a folder of its own: what takes the files along leaves it here.
#
# SECRETS=DIR writes elsewhere. Needs openssl. To renew one, remove its file and run this again.
set -eu
cd "${SECRETS:-$(dirname "$0")}"
umask 022 # the containers' users read them; the folder is for its owner alone
chmod 700 .

random() { openssl rand -base64 24 | tr '+/' '-_'; }
secret() { [ -s "$1" ] || random >"$1"; }

# A certificate for a service: its name in compose's network, the name they all share, and this machine.
certificate() {
  [ -s "$1.pem" ] && return
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" -keyout "$1.key" -out request 2>/dev/null
  printf 'subjectAltName=DNS:%s,DNS:perilune,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' "$1" >names
  openssl x509 -req -in request -CA ca.pem -CAkey authority/ca.key -days 825 -extfile names -out "$1.pem" 2>/dev/null
  chmod 644 "$1.key"
  rm request names
}

# A table of the tokens file (perilune/runtime/auth.py), with the token's hash.
caller() {
  secret "token_$1"
  hash=$(tr -d '\n' <"token_$1" | openssl dgst -sha256 -r | cut -d' ' -f1)
  printf '[%s]\nsha256 = "%s"\nroles = [%s]\n\n' "$1" "$hash" "$2"
}

secret postgres_password
[ "${1:-}" = --tls ] || exit 0

mkdir -p authority
[ ! -e ca.key ] || mv ca.key authority/
if [ ! -s ca.pem ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=Perilune" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -keyout authority/ca.key -out ca.pem 2>/dev/null
  chmod 600 authority/ca.key
fi
for name in nats postgres master trainer rollout reward sandbox; do certificate "$name"; done
{
  caller master '"master"'
  caller trainer '"trainer"'
  caller rollout '"rollout"'
  caller reward '"reward-worker"'
  caller operator '"admin"'
} >tokens.toml
for name in master trainer rollout reward; do secret "nats_$name"; done
for name in master trainer rollout reward; do printf 'PASSWORD_%s: "%s"\n' "$name" "$(cat "nats_$name")"; done >nats_passwords.conf
