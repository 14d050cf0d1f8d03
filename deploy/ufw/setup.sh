#!/bin/sh
# Sets ufw up for gossipd, and takes back exactly what it did. See --help.
set -eu
export LC_ALL=C

applications=/etc/ufw/applications.d
# What was done, oldest first, one line each; --undo reads it backwards.
state=/etc/ufw/gossipd.state
here=$(cd -- "$(dirname -- "$0")" && pwd)

usage() {
  cat <<'END'
Usage: setup.sh --interface IFACE [OPTIONS]
       setup.sh --undo [--dry-run]

Has ufw refuse what comes in, except SSH (limited) and, on one interface, gossipd's 7946 tcp and udp; IPv4 and IPv6.
Says what it changes; run again, it changes nothing.

Options:
  --interface IFACE    the private interface, such as eth1
  --overlay            also 4789/udp: VXLAN between the nodes
  --encrypted          also ESP: overlay networks with encryption
  --close-docker-tcp   delete the rules that open Docker's 2375 and 2376 to everybody
  --public             accept an interface that holds the default route
  --dry-run            say what would be changed, change nothing
  --undo               take back what earlier runs have changed, and nothing else
  -h, --help           print this

Exit codes: 0 done or nothing to do, 1 refused or failed, 2 wrong usage
END
}

say() { printf '%s\n' "$*"; }
fail() { printf 'Error: %s\n' "$*" >&2; exit 1; }
misuse() { printf 'Error: %s; see --help\n' "$*" >&2; exit 2; }

interface='' overlay='' encrypted='' close_docker='' public='' dry_run='' undo=''
while [ $# -gt 0 ]; do
  case $1 in
    --interface)
      [ $# -ge 2 ] || misuse "--interface needs a name"
      interface=$2
      shift
      ;;
    --interface=*) interface=${1#*=} ;;
    --overlay) overlay=yes ;;
    --encrypted) encrypted=yes ;;
    --close-docker-tcp) close_docker=yes ;;
    --public) public=yes ;;
    --dry-run) dry_run=yes ;;
    --undo) undo=yes ;;
    -h | --help) usage; exit 0 ;;
    *) misuse "unknown argument '$1'" ;;
  esac
  shift
done

# ---- what there is -----------------------------------------------------------------------------------------------------

# Rules as arguments of ufw, one a line, in order; those for IPv4 and IPv6 alike once.
rules() { ufw show added | sed -n 's/^ufw //p'; }
is_rule() { rules | sed "s/ comment '.*//" | grep -qxF -- "$1"; }
is_active() { ufw status | grep -q '^Status: active'; }
incoming() { sed -n 's/^DEFAULT_INPUT_POLICY="*\([A-Z]*\)"*.*/\1/p' /etc/default/ufw | tail -n 1; }
remember() { [ -n "$dry_run" ] || printf '%s\n' "$*" >>"$state"; }

# ---- changes -----------------------------------------------------------------------------------------------------------

changes=0
run() {
  changes=$((changes + 1))
  if [ -n "$dry_run" ]; then
    say "would run: $*"
    return 0
  fi
  say "$*"
  output=$("$@" 2>&1) || fail "$* failed: $output"
}

# Changes rules by a ufw command, and remembers which went, with their places, and which came.
change() {
  before=$(rules)
  run "$@"
  [ -z "$dry_run" ] || return 0
  after=$(rules)
  place=0
  printf '%s\n' "$before" | while IFS= read -r rule; do
    place=$((place + 1))
    [ -n "$rule" ] || continue
    printf '%s\n' "$after" | grep -qxF -- "$rule" || remember "- $place $rule"
  done
  printf '%s\n' "$after" | while IFS= read -r rule; do
    [ -n "$rule" ] || continue
    printf '%s\n' "$before" | grep -qxF -- "$rule" || remember "+ $rule"
  done
}

install_profile() {
  [ ! -e "$applications/$1" ] || return 0
  [ -f "$here/$1" ] || fail "there is no application profile $1 in $applications, nor beside this script"
  run cp -- "$here/$1" "$applications/$1"
  remember "profile $1"
}

allow_application() {
  is_rule "allow in on $interface to any app $1" || change ufw allow in on "$interface" to any app "$1"
}

# SSH first: whoever does this from afar wants to stay connected.
limit_ssh() {
  for port in 22 22/tcp OpenSSH; do
    ! is_rule "allow $port" || change ufw limit "$port"
  done
  # Any rule of the operator's about SSH is better informed than this script.
  if ! rules | grep -Eq '^[a-z]+ (in )?(22|22/tcp|OpenSSH)( |$)|port 22( |$)|app OpenSSH( |$)'; then
    change ufw limit 22
  fi
}

close_docker_tcp() {
  for port in 2375 2376 2375/tcp 2376/tcp 2375:2376/tcp; do
    ! is_rule "allow $port" || change ufw --force delete allow "$port"
  done
}

deny_incoming() {
  case $(incoming) in
    DROP) return ;;
    ACCEPT) was=allow ;;
    REJECT) was=reject ;;
    *) fail "/etc/default/ufw has no DEFAULT_INPUT_POLICY that this script knows" ;;
  esac
  run ufw default deny incoming
  remember "incoming $was"
}

switch_on() {
  if is_active; then
    return
  fi
  run ufw --force enable
  remember enabled
}

check_interface() {
  case $interface in
    '') misuse "--interface is missing" ;;
    -* | *[!A-Za-z0-9_.-]* | lo) fail "'$interface' cannot be the private interface" ;;
  esac
  ip link show dev "$interface" >/dev/null 2>&1 || fail "there is no interface $interface on this machine: it has $(
    ip -o link show | sed 's/^[0-9]*: \([^:@]*\).*/\1/' | grep -vx lo | tr '\n' ' '
  )"
  routes=$(ip -4 route show default dev "$interface"; ip -6 route show default dev "$interface" 2>/dev/null)
  if [ -n "$routes" ] && [ -z "$public" ]; then
    fail "$interface holds the default route, so it is the public interface; --public if you want gossipd there"
  fi
}

# A rule for all interfaces would make the one for a single interface pointless.
check_rules() {
  wide=$(rules | awk '
    $1 != "allow" && $1 != "limit" { next }
    {
      ports = $2 == "in" ? $3 : $2
      sub("/.*", "", ports)
      found = ports == "gossipd"
      count = split(ports, part, ",")
      for (i = 1; i <= count; i++) {
        if (split(part[i], end, ":") == 1) end[2] = end[1]
        if (end[1] + 0 <= 7946 && end[2] + 0 >= 7946) found = 1
      }
      if (found) { print; exit }
    }')
  [ -z "$wide" ] || fail "'ufw $wide' opens 7946 on every interface; remove it first: ufw delete $wide"
}

set_up() {
  check_interface
  check_rules
  install_profile gossipd
  limit_ssh
  [ -z "$close_docker" ] || close_docker_tcp
  allow_application gossipd
  if [ -n "$overlay" ]; then
    install_profile gossipd-overlay
    allow_application gossipd-overlay
  fi
  if [ -n "$encrypted" ] && ! is_rule "allow in on $interface proto esp"; then
    change ufw allow in on "$interface" to any proto esp
  fi
  deny_incoming
  switch_on
}

# ---- undo --------------------------------------------------------------------------------------------------------------

# Puts a rule back where it was, or at the end where that place is no more.
restore() {
  place=$1
  rule=${2%% comment \'*}
  comment=${2#"$rule"}
  comment=${comment# comment \'}
  comment=${comment%\'}
  ! is_rule "$rule" || return 0
  if [ "$place" -gt "$(rules | wc -l)" ]; then
    set --
  else
    set -- insert "$place"
  fi
  # The rule was split by ufw itself; its words have no blanks.
  # shellcheck disable=SC2086
  set -- "$@" $rule
  [ -z "$comment" ] || set -- "$@" comment "$comment"
  run ufw "$@"
}

undo_line() {
  case $1 in
    '+ '*)
      rule=${1#+ }
      rule=${rule%% comment \'*}
      # shellcheck disable=SC2086
      ! is_rule "$rule" || run ufw --force delete $rule
      ;;
    '- '*)
      rule=${1#- }
      restore "${rule%% *}" "${rule#* }"
      ;;
    'incoming '*) [ "$(incoming)" != DROP ] || run ufw default "${1#incoming }" incoming ;;
    enabled) ! is_active || run ufw disable ;;
    'profile '*) [ ! -e "$applications/${1#profile }" ] || run rm -- "$applications/${1#profile }" ;;
    *) fail "$state: cannot read '$1'" ;;
  esac
}

take_back() {
  [ -e "$state" ] || { say "nothing to undo"; exit 0; }
  # Not through a pipe: what fails in there must end this.
  lines=$(sed '1!G;h;$!d' "$state")
  while IFS= read -r line; do
    undo_line "$line"
  done <<END
$lines
END
  [ -n "$dry_run" ] || rm -- "$state"
}

# ------------------------------------------------------------------------------------------------------------------------

for program in ufw ip; do
  command -v "$program" >/dev/null 2>&1 || fail "$program is not installed"
done
[ "$(id -u)" = 0 ] || fail "only root can change the firewall"
if [ -n "$undo" ]; then
  [ -z "$interface$overlay$encrypted$close_docker$public" ] || misuse "--undo goes with --dry-run only"
  take_back
else
  set_up
fi
[ "$changes" -gt 0 ] || say "nothing to change"
