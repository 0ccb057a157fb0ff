//! By which bits a cell of eroutes is cut into smaller ones.

use super::space::{Shape, Tuple, Word};

/// As many of a large cell are looked at, so that no change of policy takes long.
const LOOKED_AT: usize = 32;

/// The bits by which most of these eroutes are kept apart, `by` and more; `None` if no bits keep a quarter of them apart.
///
/// Lengths that networks usually have come first, so that what comes later has all bits, too; if they do little, any will do,
/// and the protocol and the ports.
pub(super) fn choose<A: Word>(by: Shape, cell: &[(Shape, Tuple<A>)]) -> Option<Shape> {
    let every = cell.len().div_ceil(LOOKED_AT).max(1);
    let cell: Vec<_> = cell.iter().step_by(every).copied().collect();
    let usual = |len: u8| A::STEPS.iter().rev().find(|step| **step <= len).copied().unwrap_or(0);
    let nets = lengths(by.src, &cell, |shape| usual(shape.src));
    let nets = (nets, lengths(by.dst, &cell, |shape| usual(shape.dst)));
    let exact = (lengths(by.src, &cell, |shape| shape.src), lengths(by.dst, &cell, |shape| shape.dst));
    let ports = cell.iter().fold(by, |all, (shape, _)| Shape {
        proto: all.proto | shape.proto,
        sport: all.sport | shape.sport,
        dport: all.dport | shape.dport,
        ..by
    });
    let enough = cell.len().div_ceil(2);
    let mut best = (0, by);
    for ((sources, destinations), with_ports) in [(&nets, false), (&exact, false), (&exact, true)] {
        let ports = if with_ports { flags(by, ports) } else { vec![by] };
        for flags in ports {
            for src in sources {
                for dst in destinations {
                    let candidate = Shape { src: *src, dst: *dst, ..flags };
                    let apart = apart(candidate, &cell);
                    // The more bits the better, of those that keep as many apart: the cells become the smaller.
                    if apart >= best.0.max(1) {
                        best = (apart, candidate);
                    }
                }
            }
        }
        if best.0 >= enough {
            break;
        }
    }
    let (apart, candidate) = best;
    (candidate != by && apart.saturating_mul(4) >= cell.len()).then_some(candidate)
}

/// The lengths of this cell's prefixes on one side that are not below `least`, ascending; `least` itself is always among them.
fn lengths<A>(least: u8, cell: &[(Shape, Tuple<A>)], length: impl Fn(&Shape) -> u8) -> Vec<u8> {
    let mut all: Vec<u8> = cell.iter().map(|(shape, _)| length(shape).max(least)).collect();
    all.push(least);
    all.sort_unstable();
    all.dedup();
    all
}

/// Every choice of protocol and ports between `least` and `most`.
fn flags(least: Shape, most: Shape) -> Vec<Shape> {
    let both = |least: bool, most: bool| [least, most].into_iter().take(if least == most { 1 } else { 2 });
    let mut all = Vec::new();
    for proto in both(least.proto, most.proto) {
        for sport in both(least.sport, most.sport) {
            for dport in both(least.dport, most.dport) {
                all.push(Shape { proto, sport, dport, ..least });
            }
        }
    }
    all
}

/// How many eroutes fewer are in the largest cell than are cut at all.
fn apart<A: Word>(by: Shape, cell: &[(Shape, Tuple<A>)]) -> usize {
    let fit = cell.iter().filter(|(shape, _)| shape.covers(by));
    let mut keys: Vec<Tuple<A>> = fit.map(|(_, key)| by.leaves(key)).collect();
    keys.sort_unstable();
    let largest = keys.chunk_by(|one, two| one == two).map(<[_]>::len).max().unwrap_or(0);
    keys.len().saturating_sub(largest)
}
