//! What only a peer that has spoken four billion times would send.

use super::*;

#[test]
fn the_last_message_id_is_no_news_for_nothing_would_tell_its_repetition_from_it() {
    let ends = ("192.0.2.1:500".parse().unwrap(), "192.0.2.2:500".parse().unwrap());
    let offer = &crate::exchange::tests::connection().ike[0];
    let chosen = offer.choose(&offer.proposal(1, Protocol::Ike, Vec::new())).unwrap().into();
    let stage = Stage::Answering { ni: Vec::new(), chosen, init_i: Vec::new() };
    let mut sa = IkeSa::new(IkeSpi(1), false, ends, stage, Time::ZERO);
    for (id, news) in [(0, true), (u32::MAX - 1, true), (u32::MAX, false)] {
        sa.expected = id;
        let flags = Flags { initiator: true, response: false };
        let header =
            Header { spi_i: IkeSpi(2), spi_r: IkeSpi(1), exchange: Exchange::Informational, flags, id };
        assert_eq!(sa.is_fresh(&header), news, "{id}");
        assert!(!sa.is_fresh(&Header { id: id ^ 1, ..header }));
    }
}
