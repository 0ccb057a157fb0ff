"""The other end of many tunnels at once: esp_peer.py's ESP behind one interface, told what to do line by line.

  oracle.py CASES.json INTERFACE

CASES.json is a list of descriptions as esp_peer.py takes them. Each line of standard input is a JSON object
{"do": WHAT, "case": N, ...}, each answer one line. Between lines it answers ARP, neighbour solicitations and pings.
"""
import json
import os
import select
import sys
import time
import types

import esp_peer
from esp_peer import ICMP, IP, UDP, Raw, ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, Peer, SA, is6, raw


class Case:
    def __init__(self, description):
        self.c = description
        self.sas = [SA(description, d) for d in description["sas"]]
        self.into, self.out = (next(s for s in self.sas if s.d["dir"] == way) for way in ("in", "out"))
        self.last = None
        # Of each packet that came: what its ESP says is inside, and octets inside and on the wire.
        self.seen = []
        decrypt = self.into.s.decrypt

        def watched(packet, **rest):
            wire = len(raw(packet))
            inside = decrypt(packet, **rest)
            following = packet.nh if packet.version == 6 else packet.proto
            self.seen.append({"next": following, "inside": len(raw(inside)), "wire": wire})
            return inside

        self.into.s.decrypt = watched


class Family:
    """What Peer wants of a configuration: who we are on the wire, and every SA to us."""

    def __init__(self, cases):
        self.c, self.cases = cases[0].c, cases

    def find(self, spi, proto):
        return next((c.into for c in self.cases if c.into.spi == spi and c.into.proto == proto), None)


class Oracle(Peer):
    def send_inner(self, inner):
        # An answer goes into the tunnel of whoever asked.
        case = next(c for c in self.cfg.cases if c.c["inner_remote"] == inner.dst)
        self.send(case, case.out.encrypt(inner))

    def answer(self, packet):
        if isinstance(packet, Raw):
            self.count("dummy")
            return None
        # What follows it is TFC padding, and no part of what is answered.
        length = packet.plen + 40 if packet.version == 6 else packet.len
        return super().answer(esp_peer.ip_parse(raw(packet)[:length]))

    def send(self, case, packet):
        case.last = raw(packet)
        self.link.send(self.frame(packet))


def inner(case, source, number):
    to = case.c["inner_remote"]
    if is6(to):
        return IPv6(src=source, dst=to) / ICMPv6EchoRequest(id=7, seq=number, data=b"from the oracle")
    return IP(src=source, dst=to) / ICMP(id=7, seq=number) / b"from the oracle"


def is_reply(packet, number):
    if ICMPv6EchoReply in packet:
        return packet[ICMPv6EchoReply].seq == number
    return ICMP in packet and packet[ICMP].type == 0 and packet[ICMP].seq == number


def flipped(packet):
    octets = bytearray(raw(packet))
    octets[-1] ^= 1
    packet = (IPv6 if octets[0] >> 4 == 6 else IP)(bytes(octets))
    if packet.version == 6 and UDP in packet:
        # The bit is to be found by ESP, not by UDP.
        packet[UDP].chksum = None
    return packet


def do(peer, case, order):
    what = order["do"]
    if what == "ping":
        replies = 0
        for number in range(order["count"]):
            peer.send_inner(inner(case, case.c["inner_local"], number))
            end = time.time() + 5
            while time.time() < end:
                if any(is_reply(packet, number) for packet in peer.poll(0.5)):
                    replies += 1
                    break
        return {"replies": replies}
    if what == "flip":
        peer.link.send(peer.frame(flipped(case.out.encrypt(inner(case, case.c["inner_local"], 99)))))
    elif what == "replay":
        peer.link.send(peer.frame((IPv6 if case.last[0] >> 4 == 6 else IP)(case.last)))
    elif what == "outside":
        stranger = "2001:db8:99::1" if is6(case.c["inner_local"]) else "10.99.0.1"
        peer.link.send(peer.frame(case.out.encrypt(inner(case, stranger, 98))))
    elif what == "stats":
        return dict(peer.stats)
    elif what == "seen":
        seen, case.seen = case.seen, []
        return {"seen": seen}
    else:
        return {"error": "what is " + what}
    return {"sent": True}


def main():
    path, interface = sys.argv[1:3]
    with open(path) as file:
        cases = [Case(description) for description in json.load(file)]
    link = esp_peer.Link(types.SimpleNamespace(bess=None, iface=interface))
    peers = {}
    for six in (False, True):
        mine = [case for case in cases if is6(case.c["local"]) == six]
        if mine:
            peers[six] = Oracle(Family(mine), link, verbose=False)
    for peer in peers.values():
        peer.resolve()
    print(json.dumps({"ready": len(cases)}), flush=True)
    pending = b""
    while True:
        ready = select.select([0, link.s], [], [])[0]
        if link.s in ready:
            # Both families hear every frame and answer what is theirs.
            frame = esp_peer.Ether(link.recv(0) or b"")
            for six, peer in peers.items():
                if frame.type == 0x806 and six or frame.type == (0x800 if six else 0x86DD):
                    continue
                peer.handle(frame)
        if 0 in ready:
            octets = os.read(0, 65536)
            if not octets:
                return
            pending += octets
            while b"\n" in pending:
                line, pending = pending.split(b"\n", 1)
                order = json.loads(line)
                case = cases[order["case"]]
                print(json.dumps(do(peers[is6(case.c["local"])], case, order)), flush=True)


main()
