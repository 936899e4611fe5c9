//! Stored commands: the list of many, and all fields of one.

use adjutant::{Command, CommandType};
use comfy_table::Cell;

use super::table::{cut_last_column, fields, finish, right, table, title};
use super::units::{time, timeout};
use crate::plain::one_line;
use crate::ui::Target;

/// A list of stored commands.
pub(crate) fn commands(commands: &[Command], target: Target) -> String {
    let mut table = table(target, &["COMMAND", "NAME", "CREATED", "RUNS", "SCRIPT"]);
    for command in commands {
        table.add_row(vec![
            Cell::new(command.command_id),
            Cell::new(title(&command.name, "")),
            Cell::new(time(&command.creation_time)),
            right(command.invoke_times.to_string()),
            Cell::new(title("", &command.command_content.to_text())),
        ]);
    }
    cut_last_column(&mut table, target);
    finish(&table)
}

/// What a stored command is, line by line.
pub(crate) fn command(command: &Command) -> String {
    let pairs = |pairs: Vec<String>| one_line(&pairs.join(", "));
    let tags = command.tags.iter().map(|tag| format!("{}={}", tag.key, tag.value));
    let tags = pairs(tags.collect());
    let defaults = command.parameter_definitions.iter().filter(|one| !one.required);
    let defaults = defaults.map(|one| format!("{}={}", one.parameter_name, one.default_value));
    let defaults = pairs(defaults.collect());
    let secrets: Vec<_> = command.secret_parameters.iter().collect();
    fields(&[
        ("Command", command.command_id.to_string()),
        ("Name", one_line(&command.name)),
        ("About", one_line(&command.description)),
        ("Type", language(command.command_type).to_owned()),
        ("Launcher", one_line(&command.launcher)),
        ("User", one_line(&command.username)),
        ("Tags", tags),
        ("Defaults", defaults),
        ("Secrets", one_line(&secrets.join(", "))),
        ("Output to", one_line(&command.oss_output_delivery)),
        ("Folder", one_line(&command.working_dir)),
        ("Timeout", timeout(command.timeout)),
        ("Created", time(&command.creation_time)),
        ("Runs", command.invoke_times.to_string()),
    ])
}

/// What a script is written in, in the words of the option.
fn language(command_type: CommandType) -> &'static str {
    match command_type {
        CommandType::RunShellScript => "shell",
        CommandType::RunPowerShellScript => "powershell",
        CommandType::RunBatScript => "bat",
    }
}
