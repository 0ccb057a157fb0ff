//! Connections of the gateways themselves: what is protected is the way to the very address that ESP and IKE go to.

use super::{Gateway, SECRET, passes, scene, wait};
use std::net::IpAddr;

const HOSTS: &str = "\
conn west-east
\tleft=192.0.2.1
\tleftid=@west
\tright=198.51.100.7
\trightid=@east
\tauthby=secret
\tretransmit-interval=200
";

#[test]
fn host_to_host_comes_up_across_a_router_by_itself_and_on_demand() {
    for auto in ["start", "route"] {
        let Some([left, _router, right]) = scene() else { return };
        let conn = |auto: &str| format!("{HOSTS}\tauto={auto}\n");
        let mut west = Gateway::new(left, "192.0.2.1", &conn(auto), SECRET);
        let mut east = Gateway::new(right, "198.51.100.7", &conn("add"), SECRET);
        for gateway in [&mut east, &mut west] {
            gateway.start_klips();
            gateway.start_pluto();
        }
        let ends: [(_, IpAddr); 2] = [(&west.namespace, west.inside), (&east.namespace, east.inside)];
        passes(ends[0], ends[1]);
        passes(ends[1], ends[0]);
        assert_eq!((west.spis().len(), east.spis().len()), (1, 1), "in clear");
        // It is spoken of there, too.
        let before = west.spis();
        east.done(&["auto", "--rekey", "west-east"]);
        wait("new SAs", || west.spis().len() == 1 && west.spis() != before);
        passes(ends[0], ends[1]);
        passes(ends[1], ends[0]);
    }
}
