//! `ipsec demo`: the whole job in one command. Two hosts, two gateways, a tunnel between them, real traffic, and proof
//! taken from the wire.
//!
//! Everything happens in network namespaces made for it, so that nothing of the machine is touched and nothing stays.
//! The gateways run the same daemon and are told what to do by the same commands as any other.

mod attack;
mod scene;
mod story;
mod traffic;
mod witness;

use super::{Failure, finish};
use crate::print;
use core::time::Duration;
use nix::sys::signal::{SigSet, Signal};
use scene::{Cast, Gateway, Scene};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::thread;
use story::Story;
use traffic::Marker;
use witness::Witness;

/// Two hosts, two gateways, a tunnel, traffic and proof; touches nothing of this machine
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Needs no root where users may make namespaces of their own, and runs as root
otherwise. It shows two files that make a tunnel, IKEv2 with a hybrid
post-quantum key exchange, a ping, a TCP transfer in the middle of which all
keys are replaced, the eroute table, what an attacker achieves, and what crossed
the wire between the gateways. Exit code 0 only if all of it is as it should be.")]
pub struct Args {
    /// How long the TCP transfer takes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Raw ESP instead of ESP in UDP
    #[arg(long)]
    raw: bool,
    /// Keys and policy by hand, without pluto
    #[arg(long)]
    manual: bool,
    /// Print one JSON object instead of the story
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    finish("demo", show(args))
}

fn show(args: &Args) -> Result<(), Failure> {
    // Before the first thread: a namespace of users can be entered by a lonely thread only, and signals wait for one
    // thread of ours, which cleans up.
    let as_root = scene::become_able()?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(|error| Failure::new(format_args!("signals: {error}")))?;

    let mut story = Story::new(args.json);
    let cast = Cast::new()?;
    let on_signal = cast.clone();
    thread::spawn(move || {
        if signals.wait().is_ok() {
            print::complain("\nstopped; cleaning up");
            on_signal.leave();
            std::process::exit(130);
        }
    });
    let outcome = play(args, as_root, &cast, &mut story);
    cast.leave();
    let facts = outcome?;
    let held = story.all_held();
    let told = if args.json {
        print::line(json!({ "held": held, "checks": story.checks(), "facts": facts }))
    } else {
        story.end()
    };
    if held {
        Ok(told?)
    } else {
        Err(Failure::new("not all of it held; the lines marked NO say what did not"))
    }
}

fn play(args: &Args, as_root: bool, cast: &Cast, story: &mut Story) -> Result<Value, Failure> {
    story.open(args.raw);

    story.chapter(
        "Four network namespaces",
        if as_root { "as root" } else { "as root of a user namespace, not of this machine" },
    );
    let scene = Scene::build()?;
    story.note("host A 10.1.0.2 · gateway A 192.0.2.1 · gateway B 192.0.2.2 · host B 10.2.0.2");

    story.chapter("A klips on each gateway", "the data plane, with ipsec0 on top of the wire");
    let (a, b) = (
        Gateway::start(cast, &scene.gateway_a, "a", "wan-a")?,
        Gateway::start(cast, &scene.gateway_b, "b", "wan-b")?,
    );
    story.command(&["tncfg"]);
    story.shell(&a.ipsec(&["tncfg"], None)?);

    let keyed = if args.manual {
        scene.route_into_tunnel()?;
        by_hand(args, (&a, &b), story)?
    } else {
        by_two_files(args, cast, (&a, &b), story)?
    };

    // Nothing marked has moved yet: from here on, every frame is looked at.
    let marker = Marker::new()?;
    let lan = Witness::on(&scene.gateway_a, "lan-a", marker.clone())?;
    let wire = Witness::on(&scene.gateway_a, "wan-a", marker.clone())?;
    let stranger = Witness::for_strangers(&scene.gateway_a, "wan-a", args.raw, marker.clone())?;

    story.chapter("A ping from host A to host B", "");
    let ping = traffic::ping(&scene.host_a, [10, 2, 0, 2].into(), 5, &marker)?;
    story.note(&format!(
        "{} sent, {} answered, {:.0} µs on average",
        ping.sent, ping.answered, ping.average_micros
    ));
    story.check("every ping was answered", ping.answered == ping.sent && ping.sent > 0);

    story.chapter("A marked letter over TCP", "128 KiB of a sentence that must not be seen on the wire");
    let letter = traffic::letter(&scene, 128 << 10, &marker)?;
    story.check("it arrived whole", letter.intact);
    let (seen_on_lan, seen_on_wire) = (lan.stop()?, wire.stop()?);
    story.note(&format!(
        "on the wire: {} ESP packets{}, {} IKE, {} ARP, {} others; the mark was seen {} times",
        seen_on_wire.esp,
        if args.raw { "" } else { " in UDP 4500" },
        seen_on_wire.ike,
        seen_on_wire.arp,
        seen_on_wire.others,
        seen_on_wire.marks
    ));
    story.note(&format!("on host A's own cable, where it is in clear: {} times", seen_on_lan.marks));
    story.check("every frame of the wire was looked at", seen_on_wire.missed == 0);
    story.check(
        "the wire carried ESP and IKE and nothing else",
        seen_on_wire.esp > 0 && seen_on_wire.others == 0,
    );
    story.check("the mark is on host A's cable", seen_on_lan.marks > 0);
    story.check("the mark is not on the wire", seen_on_wire.marks == 0);

    story.chapter("An attacker on the wire", "sends again what was sent, and changes what was sent");
    let packet =
        seen_on_wire.sample.as_deref().ok_or_else(|| Failure::new("no packet to attack with was seen"))?;
    let refused = attack::run(&scene.gateway_a, &b, packet)?;
    for (what, why, moved) in &refused {
        story.note(&format!("{what}: refused by gateway B, counted as {why}"));
        story.check(&format!("{what} is refused"), *moved);
    }

    story.chapter("TCP as fast as it goes", &format!("{} s from host A to host B", args.seconds));
    let mut table = String::new();
    let mut renewed = None;
    let rate = traffic::stream(&scene, Duration::from_secs(args.seconds), &marker, || {
        table = a.ipsec(&["eroute"], None).unwrap_or_default();
        if !args.manual {
            renewed = Some(renew(&a));
        }
    })?;
    story.note(&format!("{:.2} Gbit/s, {} MB, every octet compared", rate.gigabits, rate.octets / 1_000_000));
    story.check("what arrived is what was sent", rate.intact && rate.octets > 0);
    story.note("the eroute table of gateway A half way through:");
    story.command(&["eroute"]);
    story.shell(&table);
    if let Some(renewed) = renewed {
        let (before, after) = renewed?;
        story.note("in the middle of it all keys were replaced, of the IKE SA and of the tunnel:");
        story.command(&["auto", "--rekey", "--ike", CONNECTION]);
        story.command(&["auto", "--rekey", CONNECTION]);
        story.note(&format!("inbound SPI {before}, then {after}"));
        story.check("new SAs took over and not an octet was lost", before != after && rate.intact);
        story.command(&["auto", "--status"]);
        story.shell(&a.ipsec(&["auto", "--status"], None)?);
    }
    let packets = a.eroute_packets()?;
    story.check("the eroute counted the packets", packets > 0 && table.contains("esp0x"));
    let strangers = stranger.stop()?;
    story.check("all the while, nothing but ESP and IKE crossed the wire", strangers.others == 0);
    story.check("no invariant was broken", a.discard("internal")? == 0 && b.discard("internal")? == 0);

    Ok(json!({
        "keys": keyed,
        "carrier": if args.raw { "esp" } else { "udp" },
        "ping": { "sent": ping.sent, "answered": ping.answered, "average_micros": ping.average_micros },
        "wire": { "esp": seen_on_wire.esp, "ike": seen_on_wire.ike + strangers.ike, "arp": seen_on_wire.arp, "others": seen_on_wire.others + strangers.others,
                  "marks": seen_on_wire.marks, "missed": seen_on_wire.missed },
        "cable": { "marks": seen_on_lan.marks },
        "tcp": { "gigabits": rate.gigabits, "octets": rate.octets, "seconds": rate.seconds },
        "eroute_packets": packets,
        "refused": refused.iter().map(|(what, why, moved)| json!({ "packet": what, "counter": why, "moved": moved })).collect::<Vec<_>>(),
    }))
}

/// What the connection is called in both files.
const CONNECTION: &str = "site-to-site";

/// Keys and policy by `ipsec spi` and `ipsec eroute`. Returns what is said of the keys.
fn by_hand(args: &Args, (a, b): (&Gateway<'_>, &Gateway<'_>), story: &mut Story) -> Result<Value, Failure> {
    story.chapter(
        "Keys and policy",
        "fresh random keys, handed over on standard input, never on a command line",
    );
    for line in scene::install(a, b, args.raw)? {
        story.line(&line);
    }
    Ok(json!("aes-gcm16, 128 bits"))
}

/// Two files on each gateway, and pluto. Returns what was negotiated.
fn by_two_files(
    args: &Args,
    cast: &Cast,
    (a, b): (&Gateway<'_>, &Gateway<'_>),
    story: &mut Story,
) -> Result<Value, Failure> {
    story.chapter("Two files on each gateway", "the same, but for the name of the wire");
    let ([on_a, on_b], [shown, _]) = scene::files(args.raw)?;
    story.file("ipsec.conf", &shown.conf);
    story.file("ipsec.secrets", &shown.secrets);
    a.start_pluto(cast, &on_a)?;
    b.start_pluto(cast, &on_b)?;

    story.chapter("A pluto on each gateway", "IKEv2, with X25519 and ML-KEM-768 together");
    story.command(&["auto", "--up", CONNECTION]);
    story.shell(&a.ipsec(&["auto", "--up", CONNECTION], None)?);
    let status = a.status()?;
    let algorithms =
        status.pointer("/ike_sas/0/algorithms").and_then(Value::as_str).unwrap_or_default().to_owned();
    story.note(&format!("chosen: {algorithms}"));
    story.check("the connection is up", spi(&status).is_some());
    story.check(
        "the key exchange is hybrid: who breaks one of its two halves has nothing",
        algorithms.contains("mlkem768"),
    );
    Ok(json!(algorithms))
}

/// The inbound SPI of the newest pair.
fn spi(status: &Value) -> Option<String> {
    let pairs = status.pointer("/connections/0/sas")?.as_array()?;
    let newest = pairs.iter().find(|pair| pair.get("replaced") == Some(&json!(false)))?;
    Some(newest.get("in")?.as_str()?.to_owned())
}

/// Replaces every key, and says which SPI there was before and which after.
fn renew(a: &Gateway<'_>) -> Result<(String, String), Failure> {
    let now = || a.status().map(|status| spi(&status).unwrap_or_default());
    let before = now()?;
    a.ipsec(&["auto", "--rekey", "--ike", CONNECTION], None)?;
    a.ipsec(&["auto", "--rekey", CONNECTION], None)?;
    let mut after = now()?;
    for _ in 0..250 {
        if after != before && !after.is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
        after = now()?;
    }
    Ok((before, after))
}
