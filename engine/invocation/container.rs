//! The container that a command is to run in.

use crate::error::Violation;

/// By id, by name, or by both, which must agree then; neither for the instance itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Container {
    pub id: Option<String>,
    pub name: Option<String>,
}

const ID_DIGITS: usize = 64;
const NAME_CHARS_MAX: usize = 253;

impl Container {
    /// Empty texts count as nothing.
    pub(crate) fn new(id: &Option<String>, name: &Option<String>) -> Self {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Self { id: given(id), name: given(name) }
    }

    pub(crate) fn check(&self, found: &mut Vec<Violation>) {
        if let Some(id) = self.id.as_deref().filter(|id| !is_id(id)) {
            let message = format!(
                "want {ID_DIGITS} hexadecimal digits, after `docker://`, `containerd://` or `cri-o://` or nothing; it has {} characters",
                id.chars().count()
            );
            let code = "InvalidContainerId.Malformed";
            found.push(Violation::new(code, 400, "ContainerId", message));
        }
        if let Some(name) = self.name.as_deref().filter(|name| !is_name(name)) {
            let message = format!(
                "want a letter or digit, then letters, digits, `_`, `.` and `-`, {NAME_CHARS_MAX} characters at most; it has {}",
                name.chars().count()
            );
            let code = "InvalidContainerName.Malformed";
            found.push(Violation::new(code, 400, "ContainerName", message));
        }
    }
}

fn is_id(id: &str) -> bool {
    let runtimes = ["docker://", "containerd://", "cri-o://"];
    let digits = runtimes.iter().find_map(|runtime| id.strip_prefix(runtime)).unwrap_or(id);
    digits.len() == ID_DIGITS && digits.chars().all(|c| c.is_ascii_hexdigit())
}

fn is_name(name: &str) -> bool {
    let name = name.strip_prefix('/').unwrap_or(name);
    let rest = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    name.len() <= NAME_CHARS_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_named_as_their_runtimes_do() {
        let check = |id: &str, name: &str, codes: &[&str]| {
            let container = Container::new(&Some(id.to_owned()), &Some(name.to_owned()));
            let mut found = Vec::new();
            container.check(&mut found);
            assert_eq!(found.iter().map(|v| v.code).collect::<Vec<_>>(), codes, "{id} {name}");
        };
        let id = "ab01".repeat(16);
        check("", "", &[]);
        check(&id, "web-1", &[]);
        for runtime in ["docker://", "containerd://", "cri-o://"] {
            check(&format!("{runtime}{id}"), "/web.1_x", &[]);
        }
        let (no_id, no_name) = ("InvalidContainerId.Malformed", "InvalidContainerName.Malformed");
        check(&id[1..], "", &[no_id]);
        check(&format!("rkt://{id}"), "", &[no_id]);
        check(&id.replace('a', "g"), "", &[no_id]);
        check("", "-web", &[no_name]);
        check("", "web 1", &[no_name]);
        check("", &"w".repeat(253), &[]);
        check("", &"w".repeat(254), &[no_name]);
        check("x", "\u{e4}", &[no_id, no_name]);
    }
}
