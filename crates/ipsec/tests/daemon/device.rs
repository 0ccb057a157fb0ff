//! What the table of devices says is so: what fits, what is down, what is gone.

use crate::host::Host;
use ipsec::host::netlink::Netlink;
use serde_json::Value;

fn change<R: Send>(host: &Host, change: impl FnOnce(&mut Netlink) -> std::io::Result<R> + Send) -> R {
    host.namespace.run(|| change(&mut Netlink::open()?)).expect("namespace").expect("netlink")
}

fn index(host: &Host, name: &str) -> u32 {
    change(host, |netlink| Ok(netlink.link(name)?.expect("a link").index))
}

fn row(host: &Host) -> (u64, u64, u64) {
    let said = host.ipsec(&["tncfg", "--json"]);
    let rows: Value = serde_json::from_str(&said.out).expect("JSON");
    let number = |name: &str| rows[0][name].as_u64().expect("a number");
    (number("mtu"), number("effective_mtu"), number("physical_mtu"))
}

/// The daemon hears of it a little later.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
    }
    panic!("{what}");
}

#[test]
fn the_largest_packet_is_that_of_the_sas_there_are() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    let eth7 = index(&host, "eth7");
    change(&host, |netlink| netlink.add_address_and_route(eth7, "2001:db8::7/64".parse().expect("net")));
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    assert_eq!(row(&host), (1420, 1420, 1500));
    let key = |octets: usize| format!("0x{}", "11".repeat(octets));
    let set = |said: &str, src: &str, esp: &str, encryption: usize, auth: usize| {
        assert_eq!(host.ipsec(&["spi", "--clear"]).code, 0);
        let (encryption, auth) = (key(encryption), [key(auth)]);
        let auth: Vec<&str> = if auth[0].len() > 2 { vec!["--authkey", &auth[0]] } else { Vec::new() };
        let words = ["spi", "--said", said, "--src", src, "--esp", esp, "--enckey", &encryption];
        let said = host.ipsec(&[&words[..], &["--tunnel", "--natt", "nonesp"], &auth].concat());
        assert_eq!(said.code, 0, "{said:?}");
    };
    for (esp, encryption, auth, fits) in [
        ("aes-gcm16", 20, 0, 1418),
        ("aes-cbc+hmac-sha256", 16, 32, 1406),
        ("aes-cbc+hmac-sha512", 16, 64, 1390),
    ] {
        set("esp0x1001@2001:db8::9", "2001:db8::7", esp, encryption, auth);
        assert_eq!(row(&host), (1420, fits, 1500), "{esp}");
    }
    // An inbound SA says nothing of what goes out.
    set("esp0x1001@192.0.2.7", "192.0.2.9", "aes-cbc+hmac-sha512", 16, 64);
    assert_eq!(row(&host), (1420, 1420, 1500));
    change(&host, |netlink| netlink.set_mtu(eth7, 1280));
    set("esp0x1001@192.0.2.9", "192.0.2.7", "aes-gcm16", 20, 0);
    until("the MTU of eth7 is followed", || row(&host) == (1280, 1218, 1280));
    // Set by hand, the device has what it was given.
    let ipsec0 = index(&host, "ipsec0");
    change(&host, |netlink| netlink.set_mtu(ipsec0, 1200));
    until("the MTU of ipsec0 is shown", || row(&host) == (1200, 1200, 1280));
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}

/// No SA says that it is in another: policy does, and what both put around a packet is counted.
#[test]
fn the_largest_packet_is_that_of_a_policy_that_wants_several_sas() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    let script = host.dir.path().join("setkey.conf");
    let setkey = |statements: &str| {
        std::fs::write(&script, statements).expect("statements");
        let said = host.ipsec(&["setkey", "-f", &script.display().to_string()]);
        assert_eq!(said.code, 0, "{said:?}");
    };
    let (long, short) = ("22".repeat(64), "11".repeat(16));
    let add = |src: &str, dst: &str| {
        format!(
            "add {src} {dst} esp 0x1001 -m tunnel -E aes-cbc 0x{short} -A hmac-sha512 0x{long};
             add {src} {dst} ah 0x1002 -m transport -A hmac-sha512 0x{long};\n"
        )
    };
    let want = |nets: &str, ends: &str, ah: &str| {
        format!("spdadd {nets} any -P out ipsec esp/tunnel/{ends}/require ah/transport//{ah};\n")
    };
    // 1500 octets less IP, ESP with its IV and ICV, and AH, are 1380; a multiple of 16 of that, without ESP's trailer.
    setkey(&add("192.0.2.7", "192.0.2.9"));
    assert_eq!(row(&host), (1420, 1420, 1500), "either alone lets more through");
    setkey(&want("10.1.0.0/16 10.2.0.0/16", "192.0.2.7-192.0.2.9", "require"));
    assert_eq!(row(&host), (1420, 1374, 1500));
    setkey("delete 192.0.2.7 192.0.2.9 ah 0x1002;\n");
    assert_eq!(row(&host), (1420, 1420, 1500), "without one of them nothing leaves");
    setkey("spddelete 10.1.0.0/16 10.2.0.0/16 any -P out;\n");
    setkey(&want("10.1.0.0/16 10.2.0.0/16", "192.0.2.7-192.0.2.9", "use"));
    assert_eq!(row(&host), (1420, 1420, 1500), "without AH more does");
    setkey("flush;\n");
    setkey(&add("192.0.2.7", "192.0.2.9"));
    assert_eq!(row(&host), (1420, 1374, 1500));
    // What leaves by another device, what was replaced, and what has gone does not count.
    setkey("spdflush; flush;\n");
    setkey(&format!(
        "{}{}",
        add("192.0.2.3", "192.0.2.9"),
        want("10.1.0.0/16 10.3.0.0/16", "192.0.2.3-192.0.2.9", "require")
    ));
    assert_eq!(row(&host), (1420, 1420, 1500));
    setkey(&format!(
        "{}{}",
        add("192.0.2.7", "192.0.2.9").replace("0x100", "0x200"),
        want("10.1.0.0/16 10.2.0.0/16", "192.0.2.7-192.0.2.9", "require")
    ));
    assert_eq!(row(&host), (1420, 1374, 1500));
    setkey("spdupdate 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/192.0.2.7-192.0.2.9/require;\n");
    assert_eq!(row(&host), (1420, 1420, 1500));
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}

#[test]
fn what_is_down_or_gone_is_shown_as_text_too() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    let text = || host.ipsec(&["tncfg"]).out;
    assert_eq!(text(), "ipsec0 -> eth7 mtu=1420(1420) -> 1500\n");
    let (eth7, ipsec0) = (index(&host, "eth7"), index(&host, "ipsec0"));
    change(&host, |netlink| netlink.set_up(ipsec0, false));
    until("ipsec0 is down", || text().ends_with("-> 1500  ipsec0 is down\n"));
    change(&host, |netlink| netlink.set_up(ipsec0, true));
    change(&host, |netlink| netlink.set_up(eth7, false));
    until("eth7 is down", || text().ends_with("-> 1500  eth7 is down\n"));
    assert!(host.ipsec(&["look"]).out.contains("1500  eth7 is down\n"));
    change(&host, |netlink| netlink.remove_link(eth7));
    until("eth7 is gone", || text().ends_with("-> 1500  eth7 is gone\n"));
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}

#[test]
fn a_device_that_is_renamed_or_removed_is_there_again_under_its_name_and_said() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    let device = || host.ipsec(&["tncfg", "--json"]).out;
    let eth7 = index(&host, "eth7");
    let own6: ipnet::IpNet = "2001:db8::7/64".parse().expect("net");
    change(&host, |netlink| netlink.add_address_and_route(eth7, own6));
    let ipsec0 = index(&host, "ipsec0");
    let has6 =
        || change(&host, |netlink| netlink.addresses(Some(ipsec0))).iter().any(|have| have.net == own6);
    until("the address of eth7 is followed", has6);
    change(&host, |netlink| {
        netlink.set_up(ipsec0, false)?;
        netlink.rename(ipsec0, "other")?;
        netlink.set_up(ipsec0, true)
    });
    until("it has its name back, or is shown as what it is", || {
        let links = change(&host, Netlink::links);
        links.iter().any(|link| link.name == "ipsec0") && !links.iter().any(|link| link.name == "other")
    });
    // The kernel takes IPv6 addresses from what is down.
    until("it has its IPv6 address back", has6);
    let ipsec0 = index(&host, "ipsec0");
    change(&host, |netlink| netlink.remove_link(ipsec0));
    until("it is there again", || {
        let links = change(&host, Netlink::links);
        let again = links.iter().find(|link| link.name == "ipsec0");
        again.is_some_and(|link| link.up && link.index != ipsec0) && device().contains("\"there\":true")
    });
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}
