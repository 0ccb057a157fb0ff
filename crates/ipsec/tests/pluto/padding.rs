//! TFC padding (RFC 4303 §2.7): what is in a tunnel is as long as the connection says, whatever it is.

use super::charon::{self, Charon};
use super::{CONN, Gateway, SECRET, both, crosses, pair, passes, scene, wait};
use serde_json::Value;

/// What klips says of the padding that each outbound SA has, and how much it has sent.
fn padding(gateway: &Gateway) -> Vec<(Value, u64)> {
    let rows: Vec<Value> = serde_json::from_str(&gateway.done(&["spi", "--json"])).expect("json");
    let padded = rows.iter().filter(|row| row["tfc"].is_object());
    padded.map(|row| (row["tfc"]["pad"].clone(), row["tfc"]["padding_sent"].as_u64().unwrap_or(0))).collect()
}

#[test]
fn each_side_pads_what_it_sends_as_its_own_connection_says_and_goes_on_when_it_is_rekeyed() {
    let conn = |tfc: &str| format!("{CONN}\tauto=add\n{tfc}");
    let (west, east) = (conn("\ttfc=1200\n"), conn("\ttfc=%mtu\n"));
    let Some((west, east, _router)) = pair((&west, SECRET), (&east, SECRET)) else { return };
    west.done(&["auto", "--up", "west-east"]);
    let is_padded = || {
        crosses(&west, &east);
        crosses(&east, &west);
        let (ours, theirs) = (padding(&west), padding(&east));
        let is = |all: &[(Value, u64)], pad: Value| all.len() == 1 && all[0].0 == pad && all[0].1 > 1000;
        assert!(is(&ours, 1200.into()), "{ours:?}");
        assert!(is(&theirs, "mtu".into()), "{theirs:?}");
    };
    is_padded();
    let before = west.spis();
    east.done(&["auto", "--rekey", "west-east"]);
    wait("new SAs", || west.spis().len() == 1 && west.spis() != before);
    wait("the old SAs to go", || padding(&west).len() == 1 && padding(&east).len() == 1);
    is_padded();
}

#[test]
fn without_the_word_nothing_is_padded() {
    let Some((west, east, _router)) = both() else { return };
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    assert_eq!((padding(&west), padding(&east)), (vec![], vec![]));
}

#[test]
fn strongswan_takes_what_we_pad() {
    if !charon::is_there() {
        return;
    }
    let Some([left, _router, right]) = scene() else { return };
    let (ike, esp) = ("aes256gcm16-prfsha256-x25519", "aes256gcm16-x25519-noesn");
    let conn = format!("{CONN}\tauto=add\n\tike={ike}\n\tesp={esp}\n\ttfc=900\n");
    let mut west = Gateway::new(left, "10.1.0.1", &conn, SECRET);
    west.start_klips();
    west.start_pluto();
    let east = Charon::start(right, ike, esp, "");
    west.done(&["auto", "--up", "west-east"]);
    passes((&west.namespace, west.inside), east.inside());
    passes(east.inside(), (&west.namespace, west.inside));
    assert!(padding(&west).iter().any(|(pad, sent)| *pad == 900 && *sent > 800), "{:?}", padding(&west));
}
