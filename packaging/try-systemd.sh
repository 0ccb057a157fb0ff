#!/bin/sh
# The service under systemd, in a root that `cargo xtask deb --try' has made for the purpose and throws away, with systemd as its first
# process: installed, reloaded, each of its processes killed, upgraded, stopped, removed.
#   try-systemd.sh OLD.deb NEW.deb
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C
old=$1 new=$2
say() { echo "--- systemd: $*"; }
fail() { echo "FAILED: $*" >&2; systemctl status --no-pager --lines=30 ipsec.service >&2 || true; exit 1; }
wait_for() { # wait_for WHAT COMMAND...
	what=$1; shift
	for _ in $(seq 300); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.1
	done
	fail "waited in vain: $what"
}
pid() { head -n 1 "/run/pluto/$1.pid"; }
another() { [ "$(pid "$1")" != "$2" ] && ipsec setup status; }

say "install"
ip link set lo up
ip link add eth9 type veth peer name eth8
ip link set eth9 up
ip link set eth8 up
ip addr add 192.0.2.1/24 dev eth9
ip route add default via 192.0.2.2
for package in strongswan-starter strongswan-swanctl charon-systemd libreswan; do
	if dpkg -s "$package" >/dev/null 2>&1; then dpkg --force-depends -P "$package" >/dev/null 2>&1; fi
done
rm -rf /etc/ipsec.conf /etc/ipsec.secrets /etc/ipsec.d
dpkg -i "$old"
systemctl is-enabled --quiet ipsec.service || fail "it is not enabled"
systemctl is-active --quiet ipsec.service || fail "it does not run"
ipsec setup status
# A mistake in a unit, an option that is not known.
said=$(systemd-analyze verify /usr/lib/systemd/system/ipsec.service /usr/lib/systemd/system/ipsec-metrics.service 2>&1)
[ -z "$said" ] || fail "systemd says of the units: $said"
# The tables are there for everybody on the host, not only for the service.
grep -q 'eth9' /run/pluto/proc/net/ipsec_tncfg || fail "no tables below /run/pluto/proc"

say "reload"
klips=$(pid klips) pluto=$(pid pluto) supervisor=$(pid supervisor)
systemctl reload ipsec.service
[ "$(pid klips) $(pid pluto)" = "$klips $pluto" ] || fail "a reload started something anew"
[ "$(systemctl show -p MainPID --value ipsec.service)" = "$supervisor" ] || fail "the supervisor is not the main process"

say "pluto dies, then the supervisor: each is there again, and klips goes on"
kill -9 "$pluto"
wait_for "another pluto" another pluto "$pluto"
pluto=$(pid pluto)
kill -9 "$supervisor"
wait_for "another supervisor" another supervisor "$supervisor"
wait_for "the service" systemctl is-active --quiet ipsec.service
[ "$(pid klips) $(pid pluto)" = "$klips $pluto" ] || fail "the supervisor's death cost a daemon"
supervisor=$(pid supervisor)

say "klips dies"
kill -9 "$klips"
wait_for "another klips" another klips "$klips"
klips=$(pid klips)

say "a supervisor that stands still is ended by the watchdog"
kill -STOP "$supervisor"
for _ in $(seq 100); do
	[ "$(pid supervisor)" = "$supervisor" ] || break
	sleep 1
done
wait_for "another supervisor" another supervisor "$supervisor"
[ "$(pid klips)" = "$klips" ] || fail "the watchdog cost a klips"

say "metrics"
systemctl start ipsec-metrics.service
wait_for "metrics" bash -c "exec 3<>/dev/tcp/127.0.0.1/9871"
systemctl is-active --quiet ipsec-metrics.service || fail "ipsec-metrics.service does not run"

say "upgrade"
pluto=$(pid pluto) supervisor=$(pid supervisor)
dpkg -i "$new"
wait_for "another pluto" another pluto "$pluto"
[ "$(pid klips) $(pid supervisor)" = "$klips $supervisor" ] || fail "the upgrade restarted more than pluto"
systemctl is-active --quiet ipsec.service || fail "the upgrade ended the service"

say "restart, stop, start"
systemctl restart ipsec.service
[ "$(pid klips)" != "$klips" ] || fail "klips was not restarted"
systemctl stop ipsec.service
[ "$(ipsec setup status)" = "IPsec stopped" ] || fail "it goes on after a stop"
if ip link show ipsec0 >/dev/null 2>&1; then fail "ipsec0 is left"; fi
# Not by systemd, but by hand: the same.
ipsec setup start
ipsec setup stop
systemctl start ipsec.service
ipsec setup status

say "purge"
dpkg -P tulips
[ ! -e /run/pluto ] || fail "/run/pluto is left: $(ls -A /run/pluto)"
if systemctl cat ipsec.service >/dev/null 2>&1; then fail "the unit is left"; fi
failed=$(systemctl list-units --failed --no-legend --plain)
[ -z "$failed" ] || fail "units that failed: $failed"
say "all as it should be"
