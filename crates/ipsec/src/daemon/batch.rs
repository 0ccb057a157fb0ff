//! Many changes of policy in one request.

use crate::ctl::{Change, Do, Refusal};
use crate::table::eroute::Line;
use ipsec_core::Said;
use klips::{Action, Control, Eroute, FlowChange};
use pfkey::Errno;

/// Makes all of them, or none: then it says which line cannot be, and why.
pub(super) fn make(control: &mut Control, changes: &[Change]) -> Result<(), Refusal> {
    let all = changes.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    control.change_flows(all).map_err(|(number, fault)| {
        let line = changes.get(number).map_or(0, |change| change.line);
        let why = match fault.errno {
            Errno::EEXIST => "an eroute with this selector is there already".to_owned(),
            Errno::ENOENT => "there is no eroute with exactly this selector".to_owned(),
            _ => fault.to_string(),
        };
        Refusal::with(fault.errno.name(), format!("line {line}: {why}; nothing has been changed"))
    })
}

fn read(change: &Change) -> Result<FlowChange, Refusal> {
    let row: Line =
        change.row.parse().map_err(|why| Refusal::with("EINVAL", format!("line {}: {why}", change.line)))?;
    let eroute = || {
        let eroute = Eroute::new(row.selector, action(&row.said));
        eroute.between(row.src_identity.as_str().into(), row.dst_identity.as_str().into())
    };
    Ok(match change.what {
        Do::Add => FlowChange::Add(eroute()),
        Do::Replace => FlowChange::Replace(eroute()),
        Do::Delete => FlowChange::Delete(row.selector),
    })
}

const fn action(said: &Said) -> Action {
    match said {
        Said::Sa(id) => Action::Protect(*id),
        Said::Pass | Said::Passthrough4 | Said::Passthrough6 => Action::Pass,
        Said::Drop => Action::Drop,
        Said::Reject => Action::Reject,
        Said::Trap => Action::Trap,
        Said::TrapSubnet => Action::TrapSubnet,
        Said::Hold => Action::Hold,
    }
}
