//! How a command is run, where whoever invokes it may say so too: each of these falls back to the
//! command's own.

use super::TextRule;
use super::launcher::Launcher;
use crate::error::Violation;
use crate::limits::Limits;

/// What is given; empty texts count as nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Settings {
    pub working_dir: Option<String>,
    pub username: Option<String>,
    pub launcher: Option<String>,
    /// Where the whole output goes.
    pub output_to: Option<String>,
}

impl Settings {
    pub(crate) fn new(
        working_dir: &Option<String>,
        username: &Option<String>,
        launcher: &Option<String>,
        output_to: &Option<String>,
    ) -> Self {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Self {
            working_dir: given(working_dir),
            username: given(username),
            launcher: given(launcher),
            output_to: given(output_to),
        }
    }

    /// These, and what a command says where they say nothing.
    pub(crate) fn or(self, command: Self) -> Self {
        Self {
            working_dir: self.working_dir.or(command.working_dir),
            username: self.username.or(command.username),
            launcher: self.launcher.or(command.launcher),
            output_to: self.output_to.or(command.output_to),
        }
    }

    pub(crate) fn check(&self, limits: &Limits, found: &mut Vec<Violation>) {
        let directory = TextRule {
            field: "WorkingDir",
            chars_max: limits.working_dir_chars_max,
            too_long: ("InvalidParameter.WorkingDir", 400),
            bad_character: "InvalidParameterCharacter.CommandWorkingDir",
        };
        directory.check(self.working_dir.as_deref().unwrap_or_default(), found);
        let user = TextRule {
            field: "Username",
            chars_max: limits.username_chars_max,
            too_long: ("Username.ExceedLimit", 403),
            bad_character: "InvalidParameter.Username",
        };
        user.check(self.username.as_deref().unwrap_or_default(), found);
        if let Some(launcher) = &self.launcher {
            check_launcher(launcher, limits, found);
        }
        if let Some(why) = self.output_to.as_deref().and_then(unfit_for_output) {
            let field = "OssOutputDelivery";
            found.push(Violation::new("InvalidParameter.OssOutputDelivery", 400, field, why));
        }
    }
}

fn check_launcher(launcher: &str, limits: &Limits, found: &mut Vec<Violation>) {
    let (bytes, max) = (launcher.len(), limits.launcher_bytes_max);
    if bytes > max {
        let message = format!("want at most {max} bytes; it has {bytes}");
        let code = "InvalidLauncher.LengthLimitExceeded";
        found.push(Violation::new(code, 403, "Launcher", message));
    } else if let Err(why) = Launcher::parse(launcher) {
        found.push(Violation::new("InvalidLauncher.Malformed", 400, "Launcher", why));
    }
}

/// What is wrong with a place for output: a bucket and the folders in it, or a folder of this machine.
fn unfit_for_output(text: &str) -> Option<String> {
    const CHARS_MAX: usize = 256;
    const FOLDERS_CHARS_MAX: usize = 60;
    let chars = text.chars().count();
    if chars > CHARS_MAX {
        return Some(format!("want at most {CHARS_MAX} characters; it has {chars}"));
    }
    if let Some(path) = text.strip_prefix("file://") {
        return unfit_for_path(path);
    }
    let schemes = ["oss://", "s3://", "https://"];
    let Some(place) = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)) else {
        let want = "want `oss://BUCKET/FOLDER`, the same with `s3` or `https`, or `file:///FOLDER`";
        return Some(want.to_owned());
    };
    let (bucket, folders) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() || !bucket.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c))
    {
        return Some(
            "want a bucket of letters, digits, `-`, `_` and `.` after the scheme".to_owned(),
        );
    }
    let folders = folders.strip_suffix('/').unwrap_or(folders);
    unfit_for_folders(folders, FOLDERS_CHARS_MAX)
}

/// What is wrong with the path of a folder. It stands as it is: there are no `%` sequences.
fn unfit_for_path(path: &str) -> Option<String> {
    let Some(folders) = path.strip_prefix('/') else {
        return Some("want an absolute path after `file://`, as in `file:///FOLDER`".to_owned());
    };
    let folders = folders.strip_suffix('/').unwrap_or(folders);
    if !folders.is_empty() && folders.split('/').any(is_unfit_folder)
        || folders.chars().any(char::is_control)
    {
        return Some("want no `.` or `..`, no doubled `/` and no control characters".to_owned());
    }
    None
}

/// Whether a name between two `/` would mean another folder, or none.
fn is_unfit_folder(name: &str) -> bool {
    matches!(name, "" | "." | "..")
}

/// What is wrong with folders in a bucket.
pub(crate) fn unfit_for_folders(folders: &str, chars_max: usize) -> Option<String> {
    let chars = folders.chars().count();
    if chars > chars_max {
        return Some(format!("want at most {chars_max} characters of folders; it has {chars}"));
    }
    if folders.is_empty() {
        return None;
    }
    if folders.split('/').any(is_unfit_folder) || !folders.chars().all(|c| c.is_ascii_graphic()) {
        let want =
            "want visible ASCII characters, no `.` or `..`, no `/` in front and none doubled";
        return Some(want.to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_for_output() {
        let check = |text: &str, fits: bool| {
            assert_eq!(
                unfit_for_output(text).is_none(),
                fits,
                "{text}: {:?}",
                unfit_for_output(text)
            );
        };
        check("oss://bucket", true);
        check("oss://bucket/logs/a/", true);
        check("https://b-1.cos.ap-x.example.com/logs", true);
        check("http://bucket/logs", false);
        check("bucket/logs", false);
        check("oss://", false);
        check("oss:///logs", false);
        check("oss://b/../x", false);
        check("oss://b//x", false);
        check("oss://b/./x", false);
        check("s3://bucket/logs", true);
        check("file:///var/log/runs/", true);
        check("file:///a b/ä%2e", true);
        check("file:///", true);
        check("file://", false);
        check("file://host/x", false);
        check("file:///a/../b", false);
        check("file:///./b", false);
        check("file:///a//b", false);
        check("file:////b", false);
        check("file:///a\nb", false);
        check(&format!("file:///{}", "ä".repeat(248)), true);
        check(&format!("file:///{}", "ä".repeat(249)), false);
        check("oss://b/a b", false);
        check(&format!("oss://b/{}", "x".repeat(60)), true);
        check(&format!("oss://b/{}", "x".repeat(61)), false);
    }
}
