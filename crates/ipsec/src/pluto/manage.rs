//! What a person or a program asks of pluto: load, bring up and down, reload, show ([`super::ctl`] is how it is asked).

use super::ctl::{Asked, Request};
use super::kernel::Kernel;
use super::names::Known;
use super::{Attempt, Leaving, Pluto, Watcher, status};
use crate::command::version;
use crate::conf::connection::{self, Auto, Planned};
use crate::conf::{Conf, Problem, files, secrets};
use crate::host::clock;
use ipsec_core::Time;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long `ipsec auto --down` waits for the peer to agree.
const GOODBYE: Duration = Duration::from_secs(5);

impl Pluto {
    pub(super) fn act(&mut self, asked: Asked) {
        let now = clock::now();
        let Asked { request, reply, found } = match asked.found {
            Some(_) => asked,
            None => match self.names_for(&asked.request) {
                none if none.is_empty() => asked,
                names => return self.look_up(names, asked),
            },
        };
        if let Some(found) = found {
            self.hosts.take(found, now);
        }
        let done = match request {
            Request::Up { name, asynchronous } => {
                let Ok(names) = self.loaded(&name) else {
                    let _ = reply.send(outcome(self.loaded(&name).map(|_| Value::Null)));
                    return;
                };
                if self.is_up(&name) {
                    Ok(json!("up already"))
                } else {
                    let before = names.iter().filter_map(|name| self.under_way(name, now));
                    let before: Vec<String> = before.collect();
                    let failed = names.iter().find_map(|name| {
                        self.endpoint.keep(name);
                        let why = self.up(name, now).err()?;
                        self.note_down(name, &why, now);
                        Some(why)
                    });
                    match failed {
                        Some(why) => Err(why),
                        None if asynchronous => Ok(Value::Null),
                        None => {
                            for line in before.into_iter().chain(self.queued(&names)) {
                                let _ = reply.send(json!({ "say": line }));
                            }
                            self.watchers.push(Watcher { section: name, reply });
                            return;
                        }
                    }
                }
            }
            Request::Down { name } => match self.loaded(&name) {
                Ok(names) => {
                    self.waiting.retain(|waiting| !names.contains(waiting));
                    names.iter().for_each(|name| self.endpoint.down(name, now));
                    self.leaving.push(Leaving { names, until: now.after(GOODBYE), reply });
                    return;
                }
                Err(why) => Err(why),
            },
            Request::Rekey { name, ike } => self.loaded(&name).and_then(|names| {
                let any =
                    names.iter().map(|name| self.endpoint.rekey(name, ike, now)).fold(false, |a, b| a | b);
                if any { Ok(Value::Null) } else { Err(format!("\"{name}\" is not up")) }
            }),
            Request::Route { name } => self.loaded(&name).and_then(|names| {
                names.iter().try_for_each(|name| self.route(name))?;
                Ok(Value::Null)
            }),
            Request::Unroute { name } => self.loaded(&name).and_then(|names| {
                if names.iter().any(|name| self.policy.is_up(name)) {
                    return Err(format!(
                        "cannot unroute \"{name}\": it is up; `ipsec auto --down {name}' first"
                    ));
                }
                names.iter().for_each(|name| self.unroute(name));
                Ok(Value::Null)
            }),
            Request::Add { name } => self.add(&name),
            // One that only waits is forgotten with that.
            Request::Delete { name }
                if self.hosts.waits.remove(&name).is_some() && self.names(&name).is_empty() =>
            {
                Ok(Value::Null)
            }
            Request::Delete { name } => self.loaded(&name).map(|names| {
                names.iter().for_each(|name| self.delete(name, now));
                Value::Null
            }),
            Request::Reload { dry_run: true } => self.reload(true).map(|lines| json!(lines)),
            Request::Reload { dry_run: false } => self.reread().map(|lines| json!(lines)),
            Request::Again => {
                self.again();
                Ok(Value::Null)
            }
            Request::Listen => {
                self.listen();
                Ok(Value::Null)
            }
            Request::RereadSecrets => self.read_secrets().map(|lines| json!(lines)),
            Request::Status => Ok(self.status()),
            Request::Watch => {
                self.listeners.push(reply);
                return;
            }
            Request::Ping => Ok(Value::Null),
            Request::Stop { leave } => {
                (self.stop, self.leave) = (true, leave);
                Ok(Value::Null)
            }
        };
        let _ = reply.send(outcome(done));
    }

    /// What is said to who joins an attempt that is being made already: its next step may be long in coming.
    fn under_way(&mut self, name: &str, now: Time) -> Option<String> {
        self.endpoint.begun().find(|connection| connection.name == name)?;
        let Attempt { number, since, said } = self.attempts.of(name, now);
        let since = now.since(*since).as_secs();
        let step = if said.is_empty() { String::new() } else { format!("; the last step: {said}") };
        Some(format!("\"{name}\" #{number}: under way already, since {since} s{step}"))
    }

    /// What is said of connections that wait for another of the same peer.
    fn queued(&self, names: &[String]) -> Vec<String> {
        let waits = names.iter().filter(|name| self.waiting.contains(name));
        waits
            .map(|name| format!("\"{name}\": waits for the IKE SA that is being made with the same peer"))
            .collect()
    }

    /// Answers those whose connections are down: what they do next finds the policy that holds without SAs.
    pub(super) fn say_who_left(&mut self, now: Time) {
        let policy = &self.policy;
        self.leaving.retain(|Leaving { names, until, reply }| {
            let up = names.iter().find(|name| policy.is_up(name));
            if up.is_some() && now < *until {
                return true;
            }
            let said = up.map(|name| {
                json!(format!("\"{name}\" is still up: the peer has not answered yet, or has begun anew"))
            });
            let _ = reply.send(outcome(Ok(said.unwrap_or_default())));
            false
        });
    }

    fn status(&self) -> Value {
        let addresses: Vec<String> = self.ports.iter().map(|(address, _)| address.to_string()).collect();
        let now = clock::now();
        let mut all =
            status::connections(&self.planned, &self.policy, &self.failures, &self.endpoint.rows(), now);
        all["pid"] = json!(std::process::id());
        all["version"] = json!(version::VERSION);
        all["addresses"] = json!(addresses);
        all["klips"] = json!(self.plane.is_some());
        let waits = |(section, why): (&String, &String)| json!({ "section": section, "why": why });
        all["waiting"] = self.hosts.waits.iter().map(waits).collect();
        all["recording"] = json!(self.options.record);
        all["recording_failed"] = json!(self.record_failed.get());
        let ike::Counters { malformed, forged, stray, cookies, flooded, unsaid } = self.endpoint.counters();
        all["dropped"] = json!({
            "malformed": malformed, "forged": forged, "stray": stray, "cookies": cookies, "flooded": flooded,
            "unsaid": unsaid,
        });
        all
    }

    pub(super) fn read_secrets(&mut self) -> Result<Vec<String>, String> {
        let file = self.options.confs.join("ipsec.secrets");
        let read = secrets::read(&file).map_err(|problems| lines(&problems))?;
        tracing::info!("loading secrets from \"{}\"", file.display());
        let mut warnings: Vec<String> = read.warnings.iter().map(ToString::to_string).collect();
        // A file that cannot be read at the moment makes nothing less strict.
        self.strict = self.conf().map_or(self.strict, |conf| conf.setup.strictcrlpolicy);
        let now = clock::wall();
        let (trust, lines) = files::trust(&self.options.confs, self.strict, now);
        tracing::info!(
            "{} private keys, {} authorities, {} revocation lists",
            read.secrets.keys.len(),
            trust.authorities.len(),
            trust.crls.len()
        );
        warnings.extend(lines);
        warnings.iter().for_each(|line| tracing::warn!("{line}"));
        self.endpoint.set_secrets(ike::connection::Secrets { trust: Arc::new(trust), ..read.secrets });
        Ok(warnings)
    }

    /// Reads both files again. Secrets come first: what the other file has begun needs them.
    pub(super) fn reread(&mut self) -> Result<Vec<String>, String> {
        let mut said = self.read_secrets()?;
        said.extend(self.reload(false)?);
        Ok(said)
    }

    fn conf(&self) -> Result<Conf, String> {
        Conf::load(&self.options.confs).map_err(|problems| lines(&problems))
    }

    fn add(&mut self, section: &str) -> Result<Value, String> {
        let conf = self.conf()?;
        let conn =
            conf.conn(section).ok_or_else(|| format!("no conn section \"{section}\" in ipsec.conf"))?;
        let mut warnings = Vec::new();
        let planned = connection::plan(conn, &Known(&self.ports, &self.hosts), &mut warnings)
            .map_err(|problems| lines(&problems))?;
        let now = clock::now();
        let keep: Vec<String> = planned.iter().map(|planned| planned.ike.name.clone()).collect();
        for name in self.names(section).iter().filter(|name| !keep.contains(name)) {
            self.delete(name, now);
        }
        for planned in planned {
            self.load(planned, now);
        }
        Ok(json!(warnings.iter().map(ToString::to_string).collect::<Vec<_>>()))
    }

    /// Loads a connection; one that has not changed is not touched.
    fn load(&mut self, planned: Planned, now: Time) {
        let name = planned.ike.name.clone();
        if self.planned.get(&name) == Some(&planned) {
            return;
        }
        let keeps_policy = |known: &Planned| {
            known.ike.child == planned.ike.child
                && known.ike.request == planned.ike.request
                && (known.auto, known.source, known.metric, &known.updown)
                    == (planned.auto, planned.source, planned.metric, &planned.updown)
        };
        match self.planned.get(&name) {
            // What it protects stays so meanwhile.
            Some(known) if keeps_policy(known) => {
                self.waiting.retain(|waiting| *waiting != name);
                self.endpoint.remove(&name, now);
                self.settle();
            }
            Some(_) => self.delete(&name, now),
            None => {}
        }
        self.endpoint.add(planned.ike.clone());
        self.planned.insert(name.clone(), planned);
        tracing::info!("added connection \"{name}\"");
    }

    fn delete(&mut self, name: &str, now: Time) {
        self.waiting.retain(|waiting| waiting != name);
        self.endpoint.remove(name, now);
        self.settle();
        self.unroute(name);
        self.planned.remove(name);
        self.failures.forget(name);
        tracing::info!("\"{name}\": deleted");
    }

    fn route(&mut self, name: &str) -> Result<(), String> {
        let planned = self.planned.get(name).ok_or("no such connection")?;
        let Some(plane) = &mut self.plane else {
            return Err("klips is not running: nothing can be routed".to_owned());
        };
        self.policy.route(&mut plane.kernel, planned)
    }

    /// Whether it is known what a connection protects, or only once the peer has given us an address.
    fn is_configured(&self, name: &str) -> bool {
        self.planned.get(name).is_some_and(|planned| planned.ike.request.is_none())
    }

    pub(super) fn unroute(&mut self, name: &str) {
        self.policy.unroute(self.plane.as_mut().map(|plane| &mut plane.kernel as &mut dyn Kernel), name);
    }

    /// Makes what is loaded what the file says, and says what that takes. Nothing is done if the file has an error.
    pub(super) fn reload(&mut self, dry_run: bool) -> Result<Vec<String>, String> {
        let conf = self.conf()?;
        let done = self.apply(&conf, dry_run, false)?;
        if !dry_run {
            self.hosts.conf = Some(conf);
        }
        Ok(done)
    }

    /// Makes of what was loaded what it means with the names and addresses of now.
    pub(super) fn again(&mut self) {
        let Some(conf) = self.hosts.conf.take() else { return };
        if let Err(why) = self.apply(&conf, false, true) {
            tracing::warn!("{why}");
        }
        self.hosts.conf = Some(conf);
    }

    /// `again`: nobody has asked for it. What is up, what was deleted and what was loaded by hand stays as it is.
    fn apply(&mut self, conf: &Conf, dry_run: bool, again: bool) -> Result<Vec<String>, String> {
        let (mut warnings, mut errors) = (conf.warnings.clone(), Vec::new());
        let (mut wanted, mut waits, mut done) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for conn in &conf.conns {
            match connection::auto(conn) {
                Ok(Auto::Ignore) => continue,
                Ok(_) => {}
                Err(problem) => {
                    errors.push(problem);
                    continue;
                }
            }
            if let Some(name) = self.hosts.missing(conn).first() {
                // All others are loaded, and this one once its name is known; what it was before, it stays meanwhile.
                waits.insert(conn.name.clone(), format!("until it is known which address {name} has"));
                let before = self.names(&conn.name);
                wanted.extend(before.into_iter().filter_map(|name| {
                    let planned = self.planned.get(&name)?.clone();
                    Some((name, planned))
                }));
                continue;
            }
            match connection::plan_now(conn, &Known(&self.ports, &self.hosts), &mut warnings) {
                Ok(planned) => wanted.extend(planned.into_iter().map(|one| (one.ike.name.clone(), one))),
                // An address that is not there yet is no reason not to load the others.
                Err(unplanned) if unplanned.passing => {
                    waits.insert(
                        conn.name.clone(),
                        format!("until that changes: {}", lines(&unplanned.problems)),
                    );
                    let before = self.names(&conn.name).into_iter();
                    wanted.extend(
                        before.filter_map(|name| Some((name.clone(), self.planned.get(&name)?.clone()))),
                    );
                }
                Err(unplanned) => errors.extend(unplanned.problems),
            }
        }
        if !errors.is_empty() {
            return Err(lines(&errors));
        }
        if !again {
            warnings.iter().for_each(|problem| tracing::warn!("{problem}"));
        }
        let news =
            waits.iter().filter(|(section, why)| !again || self.hosts.waits.get(*section) != Some(why));
        let waits_or = if dry_run { "would wait" } else { "waits" };
        done.extend(news.map(|(section, why)| format!("\"{section}\": {waits_or} {why}")));
        let now = clock::now();
        let gone = self
            .planned
            .iter()
            .filter(|(name, old)| !again && old.auto != Auto::Ignore && !wanted.contains_key(*name));
        for name in gone.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            done.push(format!("\"{name}\": {}", if dry_run { "would remove" } else { "removed" }));
            if !dry_run {
                self.delete(&name, now);
            }
        }
        for (name, planned) in wanted {
            let (would, is) = match self.planned.get(&name) {
                Some(known) if *known == planned => continue,
                Some(_) if again && self.policy.is_up(&name) => continue,
                Some(_) => ("would change", "changed"),
                None if again && !self.hosts.waits.contains_key(&planned.section) => continue,
                None => ("would add", "added"),
            };
            done.push(format!("\"{name}\": {}", if dry_run { would } else { is }));
            if dry_run {
                continue;
            }
            let auto = planned.auto;
            self.load(planned, now);
            let begun = match auto {
                Auto::Start => {
                    self.endpoint.keep(&name);
                    // Fail closed: what is to be protected is so from now on, not once the peer answers.
                    let routed = if self.is_configured(&name) { self.route(&name) } else { Ok(()) };
                    self.up(&name, now).and(routed)
                }
                Auto::Route => self.route(&name),
                Auto::Add | Auto::Ignore => Ok(()),
            };
            if let Err(why) = begun {
                tracing::warn!("\"{name}\": {why}");
                self.note_down(&name, &why, now);
            }
        }
        if !dry_run {
            done.iter().for_each(|line| tracing::info!("{line}"));
            if let Some(plane) = &mut self.plane {
                let is_of = |section: &str, name: &str| {
                    name.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                let alive = |name: &str| {
                    self.planned.contains_key(name) || waits.keys().any(|section| is_of(section, name))
                };
                self.policy.bury(&mut plane.kernel, alive);
            }
            self.hosts.waits = waits;
        }
        Ok(done)
    }
}

fn outcome(done: Result<Value, String>) -> Value {
    match done {
        Ok(value) => json!({ "ok": value }),
        Err(why) => json!({ "error": why }),
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
