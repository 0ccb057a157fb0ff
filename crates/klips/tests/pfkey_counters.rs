//! Counters of an SA, for those who ask for them (extension 132).

mod pfkey_support;

use pfkey_support::*;

const COUNTERS: u16 = 132;

#[test]
fn only_who_asks_for_counters_gets_them() {
    let mut service = Service::default();
    let s = service.open();
    service.must(s, add_esp(1, LOCAL, PEER));
    let asking = |message: Msg| message.ext(COUNTERS, &[0; 36]);
    // None of pf_key(7P) knows this extension.
    assert_eq!(service.must(s, get(ESP, 1, PEER)).find(COUNTERS), None);
    assert_eq!(service.must(s, asking(get(ESP, 1, PEER))).find(COUNTERS), Some(vec![0; 36]));
    let delete = |spi| msg(DELETE, ESP).sa_full(spi, 0, 0, 0, 0, 0).dst(PEER);
    assert_eq!(service.must(s, asking(delete(1))).find(COUNTERS), Some(vec![0; 36]));
    service.must(s, add_esp(2, LOCAL, PEER));
    assert_eq!(service.must(s, delete(2)).find(COUNTERS), None);
}
