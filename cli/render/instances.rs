//! The list of instances.

use adjutant::Instance;
use comfy_table::Cell;

use super::table::{finish, nothing, right, table};
use crate::plain::one_line;
use crate::ui::Target;

/// A list of instances.
pub(crate) fn instances(instances: &[Instance], target: Target) -> String {
    let with_shell = instances.iter().any(|instance| instance.shell.is_some());
    let with_bound = instances.iter().any(|instance| instance.max_concurrency.is_some());
    let mut header = vec!["INSTANCE", "EXECUTOR", "OS", "STATUS"];
    header.extend(with_shell.then_some("SHELL"));
    header.extend(with_bound.then_some("AT A TIME"));
    header.push("NAME");
    let mut table = table(target, &header);
    for instance in instances {
        let shell = || instance.shell.as_deref().map_or_else(nothing, one_line);
        let bound = || instance.max_concurrency.map_or_else(nothing, |most| most.to_string());
        let mut row = vec![
            Cell::new(one_line(instance.instance_id.as_str())),
            Cell::new(one_line(&instance.executor)),
            Cell::new(instance.os_type),
            Cell::new(instance.state),
        ];
        row.extend(with_shell.then(|| Cell::new(shell())));
        row.extend(with_bound.then(|| right(bound())));
        row.push(Cell::new(one_line(&instance.name)));
        table.add_row(row);
    }
    finish(&table)
}
