#!/bin/sh
# Installs, starts, upgrades, removes and purges the package in this root, which `cargo xtask deb --try' has made for the purpose
# and throws away. A tunnel to a second gateway is up meanwhile, and what the upgrade costs it is counted.
#   try.sh OLD.deb NEW.deb
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C
old=$1 new=$2
say() { echo "--- $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
wait_for() { # wait_for WHAT COMMAND...
	what=$1; shift
	for _ in $(seq 100); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.1
	done
	fail "waited in vain: $what"
}
peer() { IPSEC_CONFS=/tmp/peer IPSEC_RUNDIR=/tmp/peer/run nsenter --net=/tmp/peer.net "$@"; }
pid() { head -n 1 "/run/pluto/$1.pid"; }

say "a second host, a cable between"
mkdir -p /tmp/peer
: >/tmp/peer.net
unshare --net=/tmp/peer.net true
ip link set lo up
ip link add eth9 type veth peer name eth8
ip link set eth8 netns /tmp/peer.net
ip link set eth9 up
ip addr add 192.0.2.1/24 dev eth9
ip addr add 10.1.0.1/32 dev lo
ip route add default via 192.0.2.2
peer ip link set lo up
peer ip link set eth8 up
peer ip addr add 192.0.2.2/24 dev eth8
peer ip addr add 10.2.0.1/32 dev lo
peer ip route add default via 192.0.2.1

say "install"
# What this machine has for tests of its own and the package does not suffer beside it goes, from the copy.
for package in strongswan-starter libreswan openswan freeswan; do
	if dpkg -s "$package" >/dev/null 2>&1; then dpkg --force-depends -P "$package" >/dev/null 2>&1; fi
done
rm -rf /etc/ipsec.conf /etc/ipsec.secrets /etc/ipsec.d
dpkg -i "$old"
[ "$(ipsec setup status)" = "IPsec stopped" ] || [ -d /run/systemd/system ] || fail "it should not run without systemd"
[ "$(stat -c %a /etc/ipsec.secrets)" = 600 ] || fail "mode of ipsec.secrets"
[ "$(stat -c %a /etc/ipsec.d/private)" = 700 ] || fail "mode of ipsec.d/private"
bash -n /usr/share/bash-completion/completions/ipsec
for page in ipsec.8 ipsec_setup.8 ipsec.conf.5 pf_key.7; do
	gzip -t "/usr/share/man/man${page##*.}/$page.gz"
done
ipsec auto --check
echo "as installed, with no connection:"
ipsec setup start
ipsec setup status
ipsec setup stop

say "two files, a tunnel"
cat >/etc/ipsec.d/east.conf <<'C'
conn east
	left=192.0.2.1
	leftsubnet=10.1.0.1/32
	right=192.0.2.2
	rightsubnet=10.2.0.1/32
	authby=secret
	auto=start
C
echo '192.0.2.1 192.0.2.2 : PSK "only for this try"' >/etc/ipsec.d/east.secrets
chmod 600 /etc/ipsec.d/east.secrets
{ printf 'config setup\n\tinterfaces="ipsec0=eth8"\n'; cat /etc/ipsec.d/east.conf; } >/tmp/peer/ipsec.conf
cp -p /etc/ipsec.d/east.secrets /tmp/peer/ipsec.secrets
peer ipsec setup start
ipsec setup start
wait_for "a packet through the tunnel" ping -c 1 -W 1 -I 10.1.0.1 10.2.0.1
before="$(sha256sum /etc/ipsec.conf /etc/ipsec.secrets /etc/ipsec.d/*.*)"

say "upgrade under traffic"
klips=$(pid klips) pluto=$(pid pluto) supervisor=$(pid supervisor)
ping -i 0.2 -W 1 -I 10.1.0.1 10.2.0.1 >/tmp/ping &
ping=$!
dpkg -i "$new"
wait_for "pluto to have the connection up" sh -c 'ipsec auto --status | grep -q "; up"'
sleep 2
kill -INT "$ping"
wait "$ping" || true
tail -n 2 /tmp/ping
grep -q ' 0% packet loss' /tmp/ping || fail "the upgrade lost packets"
[ "$(pid klips)" = "$klips" ] || fail "klips was restarted"
[ "$(pid pluto)" != "$pluto" ] || fail "pluto was not restarted"
[ "$(pid supervisor)" = "$supervisor" ] || fail "the supervisor is another process: to systemd it is the service"
case "$(readlink "/proc/$(pid supervisor)/exe")" in *deleted*) fail "the supervisor runs the old program" ;; esac
[ "$(sha256sum /etc/ipsec.conf /etc/ipsec.secrets /etc/ipsec.d/*.*)" = "$before" ] || fail "a file was changed"
wait_for "a sound state" ipsec setup status
ipsec setup status

say "what dies after the upgrade is started from the new program"
kill -9 "$(pid pluto)"
pluto=$(pid pluto)
wait_for "another pluto" sh -c "[ \"\$(head -n 1 /run/pluto/pluto.pid)\" != $pluto ] && ipsec setup status"

say "remove"
peer ipsec setup stop
dpkg -r tulips
[ ! -e /run/pluto ] || fail "/run/pluto is left: $(ls -A /run/pluto)"
! ip link show ipsec0 >/dev/null 2>&1 || fail "ipsec0 is left"
left=$(cd /proc && for p in [0-9]*; do readlink "$p/exe" || true; done | grep tulips || true)
[ -z "$left" ] || fail "processes are left: $left"
[ -e /etc/ipsec.conf ] || fail "a configuration file went with remove"

say "purge keeps what is somebody's"
dpkg -P tulips
[ ! -e /etc/ipsec.conf ] || fail "ipsec.conf is left"
[ -e /etc/ipsec.d/east.secrets ] || fail "a secret of the operator's was removed"
rm -rf /etc/ipsec.d /etc/ipsec.secrets

say "install and purge leave nothing"
find /etc /usr /var -xdev \( -name '*ipsec*' -o -name '*tulips*' \) | grep -v -e /usr/include -e /var/lib/dpkg/info | sort >/tmp/before
dpkg -i "$new"
dpkg -P tulips
find /etc /usr /var -xdev \( -name '*ipsec*' -o -name '*tulips*' \) | grep -v -e /usr/include -e /var/lib/dpkg/info | sort >/tmp/after
diff /tmp/before /tmp/after || fail "something is left"
say "all as it should be"
