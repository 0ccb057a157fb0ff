//! The PF_KEY tables: ipsec_pf_key(5), and who is registered for what.
//!
//! Where the page shows kernel addresses there are cookies: stable as long as the socket lives, and no address of
//! anything.

use super::Form;
use klips::{SocketRow, Supported};
use serde_json::json;

type Lines<'a> = Box<dyn Iterator<Item = String> + 'a>;

/// Which of the addresses of one socket a cookie stands for.
#[derive(Clone, Copy)]
enum Of {
    Sock,
    Sleep,
    Socket,
}

/// A number of the shape of an address: the same for the same socket, different for different ones, never 0.
fn cookie(row: &SocketRow, of: Of) -> u32 {
    // Multiplication by an odd number permutes the 32-bit numbers.
    let n = (row.id.0 as u32).wrapping_mul(4).wrapping_add(1 + of as u32);
    n.wrapping_mul(0x9e37_79b1) | u32::from(n == 0)
}

fn address(row: Option<&SocketRow>) -> String {
    row.map_or_else(|| "0".into(), |row| format!("{:08x}", cookie(row, Of::Sock)))
}

/// What the columns of the page are for a socket of ours.
mod constant {
    /// `AF_KEY`.
    pub(super) const FAMILY: u8 = 15;
    /// `PF_KEY_V2`.
    pub(super) const PROTOCOL: u8 = 2;
    /// `SOCK_RAW`.
    pub(super) const TYPE: u8 = 3;
    /// `SS_UNCONNECTED`.
    pub(super) const STATE: u8 = 1;
}

/// The 22 columns of the page.
fn man(row: &SocketRow, next: Option<&SocketRow>, previous: Option<&SocketRow>) -> String {
    let SocketRow { pid, created, last_error, queued, limit, .. } = row;
    let (sock, sleep, socket) = (cookie(row, Of::Sock), cookie(row, Of::Sleep), cookie(row, Of::Socket));
    let (next, previous) = (address(next), address(previous));
    let (secs, micros) = (created.as_secs(), created.as_nanos() / 1000 % 1_000_000);
    use constant::{FAMILY, PROTOCOL, STATE, TYPE};
    format!(
        "{sock:08x} {pid} 0 {sleep:08x} {socket:08x} {next} {previous} {last_error} 0 1 0 {FAMILY} 0 {PROTOCOL} \
         {queued} 0 0 {limit} {secs}.{micros:06} 00000000 {TYPE:08x} {STATE:02x}\n"
    )
}

/// The 9 columns of the kernels since 2.6.
fn klips(row: &SocketRow) -> String {
    let (sock, socket) = (cookie(row, Of::Sock), cookie(row, Of::Socket));
    let SocketRow { pid, last_error, limit, .. } = row;
    use constant::{PROTOCOL, STATE, TYPE};
    format!(
        "{sock:08x} {pid:>5} {socket:08x} {last_error} {PROTOCOL} {limit:>5} 00000000 {TYPE:>8X} {STATE:>2X}\n"
    )
}

fn object(row: &SocketRow) -> String {
    json!({
        "sock": format!("{:08x}", cookie(row, Of::Sock)),
        "pid": row.pid,
        "created": row.created.as_nanos() as f64 / 1e9,
        "last_error": row.last_error,
        "queued": row.queued,
        "limit": row.limit,
        "dropped": row.dropped,
        "registered": row.registered,
        "extended": row.extended,
        "promiscuous": row.promiscuous,
        "loopback": row.loopback,
        "dumping": row.dumping,
    })
    .to_string()
}

pub(super) fn sockets(rows: &[SocketRow], form: Form) -> Lines<'_> {
    match form {
        Form::Man => Box::new(rows.iter().enumerate().map(|(n, row)| {
            let previous = n.checked_sub(1).and_then(|n| rows.get(n));
            man(row, rows.get(n.saturating_add(1)), previous)
        })),
        Form::Klips => {
            let head = "    sock   pid   socket     next     prev e n p sndbf    Flags     Type St\n";
            Box::new(core::iter::once(head.to_owned()).chain(rows.iter().map(klips)))
        }
        Form::Json => Box::new(rows.iter().map(object)),
    }
}

pub(super) fn registered(rows: &[SocketRow], form: Form) -> Lines<'_> {
    let all = rows.iter().flat_map(|row| row.registered.iter().map(move |satype| (*satype, row)));
    match form {
        Form::Json => Box::new(all.map(|(satype, row)| {
            let sock = format!("{:08x}", cookie(row, Of::Sock));
            json!({ "satype": satype, "sock": sock, "pid": row.pid, "extended": row.extended }).to_string()
        })),
        Form::Man | Form::Klips => {
            let rows = all.map(|(satype, row)| {
                let (socket, sock) = (cookie(row, Of::Socket), cookie(row, Of::Sock));
                format!("    {satype:>2} {socket:08x} {:>5} {sock:08x}\n", row.pid)
            });
            Box::new(core::iter::once("satype   socket   pid       sk\n".to_owned()).chain(rows))
        }
    }
}

pub(super) fn supported(form: Form) -> Lines<'static> {
    // AH and ESP; the number of an SA type is its PF_KEY number.
    let all = [2, 3].into_iter().flat_map(klips::supported);
    match form {
        Form::Json => Box::new(all.map(|s| {
            json!({
                "satype": s.satype, "exttype": s.exttype, "alg_id": s.id, "ivlen": s.ivlen, "minbits": s.minbits,
                "maxbits": s.maxbits, "increment": s.increment, "saltbits": s.saltbits, "name": s.name,
            })
            .to_string()
        })),
        Form::Man | Form::Klips => {
            let head = "satype exttype alg_id ivlen minbits maxbits name\n".to_owned();
            Box::new(core::iter::once(head).chain(all.map(|s| {
                let Supported { satype, exttype, id, ivlen, minbits, maxbits, name, .. } = s;
                format!(
                    "    {satype:>2}      {exttype:>2}     {id:>2}   {ivlen:>3}     {minbits:>3}     {maxbits:>3} \
                     {name:>20}\n"
                )
            })))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipsec_core::Time;
    use klips::SocketId;

    /// The sample of ipsec_pf_key(5).
    const PAGE: &str =
        "c3b8c140 3553 0 c0599818 c05997fc 0 0 0 0 1 0 15 0 2 0 0 0 65535 0.103232 00000000 00000003 01";

    fn row(id: u64) -> SocketRow {
        SocketRow {
            id: SocketId(id),
            pid: 3553,
            created: Time::from_nanos(103_232_000),
            last_error: 0,
            queued: 0,
            limit: 65535,
            dropped: 0,
            registered: vec![2, 3],
            extended: false,
            promiscuous: false,
            loopback: true,
            dumping: false,
        }
    }

    #[test]
    fn the_row_of_the_page_comes_out_but_for_its_addresses() {
        let line = man(&row(1), None, None);
        let (ours, page): (Vec<_>, Vec<_>) = (line.split_whitespace().collect(), PAGE.split(' ').collect());
        assert_eq!(ours.len(), 22);
        for (n, (ours, page)) in ours.iter().zip(&page).enumerate() {
            match n {
                0 | 3 | 4 => assert!(ours.len() == 8 && u32::from_str_radix(ours, 16).is_ok(), "{ours}"),
                _ => assert_eq!(ours, page, "column {n}"),
            }
        }
    }

    #[test]
    fn sockets_in_a_chain_name_their_neighbours() {
        let rows = [row(1), row(2), row(3)];
        let text: Vec<String> = sockets(&rows, Form::Man).collect();
        let column = |line: usize, n: usize| text[line].split_whitespace().nth(n).unwrap().to_owned();
        assert_eq!((column(0, 5), column(0, 6)), (column(1, 0), "0".into()));
        assert_eq!((column(1, 5), column(1, 6)), (column(2, 0), column(0, 0)));
        assert_eq!(column(2, 5), "0");
    }

    #[test]
    fn cookies_are_stable_and_differ() {
        let all: std::collections::BTreeSet<u32> = (0..1000)
            .flat_map(|id| [Of::Sock, Of::Sleep, Of::Socket].map(|of| cookie(&row(id), of)))
            .collect();
        assert_eq!(all.len(), 3000);
        assert!(!all.contains(&0));
        assert_eq!(cookie(&row(7), Of::Sock), cookie(&row(7), Of::Sock));
    }

    #[test]
    fn the_kernels_form_has_its_headings() {
        let text: Vec<String> =
            sockets(&[row(1)], Form::Klips).chain(registered(&[row(1)], Form::Klips)).collect();
        assert!(text[0].starts_with("    sock   pid   socket "));
        assert_eq!(text[1].split_whitespace().count(), 9);
        assert_eq!(text[2], "satype   socket   pid       sk\n");
        assert!(text[3].starts_with("     2 "));
        assert_eq!(text.len(), 5);
    }

    #[test]
    fn supported_rows_begin_with_a_blank() {
        // A reader of KLIPS skips every line that does not.
        let text: Vec<String> = supported(Form::Man).collect();
        assert!(text.len() > 10);
        assert!(
            text.iter().skip(1).all(|line| line.starts_with(' ') && line.split_whitespace().count() == 7)
        );
    }
}
