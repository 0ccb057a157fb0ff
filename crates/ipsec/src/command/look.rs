//! `ipsec look`: everything at a glance.

use super::{Failure, finish};
use crate::ctl::{Client, Request};
use crate::host::netlink::Netlink;
use crate::print;
use crate::rundir::Rundir;
use crate::table::eroute::Line;
use crate::table::{Form, Table};
use std::fmt::Write as _;
use std::process::{Command, ExitCode};

/// What `ipsec look` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Prints the eroutes with their packet counts, the devices, the SAs, and the
routes that lead into our devices. To watch it: watch -n1 ipsec look")]
pub struct Args {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    finish("look", if args.json { object() } else { text() })
}

fn object() -> Result<(), Failure> {
    let mut client = Client::connect(&Rundir::from_env())?;
    let mut all = serde_json::Map::new();
    all.insert("status".into(), client.call(Request::Status)?);
    for (name, table) in [("eroute", Table::Eroute), ("tncfg", Table::Tncfg), ("spi", Table::Spi)] {
        let mut rows: Vec<serde_json::Value> = Vec::new();
        client.table(table, Form::Json, |row| {
            rows.push(serde_json::from_str(row)?);
            Ok(())
        })?;
        all.insert(name.into(), rows.into());
    }
    Ok(print::line(serde_json::Value::from(all))?)
}

fn table(client: &mut Client, table: Table) -> Result<String, Failure> {
    let mut all = String::new();
    client.table(table, Form::Klips, |text| {
        all.push_str(text);
        Ok(())
    })?;
    Ok(all)
}

fn text() -> Result<(), Failure> {
    let mut client = Client::connect(&Rundir::from_env())?;
    let name = rustix::system::uname();
    // Local time is the business of a program that knows the time zones.
    let date = Command::new("date").output().map(|out| out.stdout).unwrap_or_default();
    let mut out =
        format!("{} {}\n", name.nodename().to_string_lossy(), String::from_utf8_lossy(&date).trim_end());
    out.push_str(&flows(&table(&mut client, Table::Eroute)?, &table(&mut client, Table::Spigrp)?));
    for line in table(&mut client, Table::Tncfg)?.lines() {
        let _ = writeln!(out, "{}", line.replace(" -> ", "->"));
    }
    let sas = table(&mut client, Table::Spi)?;
    let mut sas: Vec<&str> = sas.lines().collect();
    sas.sort_unstable();
    for line in sas {
        let _ = writeln!(out, "{line}");
    }
    out.push_str(&routes().map_err(|error| Failure::new(format_args!("routes: {error}")))?);
    Ok(print::text(out)?)
}

/// Each eroute with the SAs it leads to, sorted by address.
fn flows(eroutes: &str, groups: &str) -> String {
    let mut rows: Vec<Line> = eroutes.lines().filter_map(|line| line.parse().ok()).collect();
    rows.sort_by_key(|row| row.selector);
    let mut out = String::new();
    for row in rows {
        let said = row.said.to_string();
        let group = groups.lines().find(|line| line.split_whitespace().next() == Some(said.as_str()));
        let ends = row.write(Form::Klips);
        let mut words = ends.split_whitespace().skip(1);
        let (src, dst) = (words.next().unwrap_or(""), words.nth(1).unwrap_or(""));
        let _ = writeln!(
            out,
            "{src:<18} -> {dst:<18} => {}  ({})",
            group.unwrap_or(&said).trim_end(),
            row.packets
        );
    }
    out
}

/// The routes that lead into a device of ours.
fn routes() -> std::io::Result<String> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    let mut out = String::new();
    for route in netlink.routes()? {
        let link = links.iter().find(|link| Some(link.index) == route.link);
        if let Some(link) = link.filter(|link| link.name.starts_with("ipsec")) {
            let _ = write!(out, "{}", route.dst);
            if let Some(via) = route.via {
                let _ = write!(out, " via {via}");
            }
            let _ = writeln!(out, " dev {}", link.name);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eroute_is_shown_with_its_group_and_sorted_by_number() {
        let eroutes = "3  10.20.0.0/16 -> 10.2.0.0/16 => %trap\n\
                       7  10.3.0.0/16 -> 10.2.0.0/16 => tun0x12345678@192.1.2.45\n";
        let groups = "tun0x12345678@192.1.2.45 esp0x12345678@192.1.2.45 \n";
        assert_eq!(
            flows(eroutes, groups),
            "10.3.0.0/16        -> 10.2.0.0/16        => tun0x12345678@192.1.2.45 esp0x12345678@192.1.2.45  (7)\n\
             10.20.0.0/16       -> 10.2.0.0/16        => %trap  (3)\n"
        );
    }
}
